package sealed

import (
	"errors"
	"fmt"

	"conclave/internal/matrix"
)

// A Failure is a class of refusals. Every error of this package about its input wraps exactly one, which [ClassOf] finds.
// The classes are shared with the client: the vectors demand the very same one from both.
type Failure string

// The classes. testdata/README.md says when each is reported.
const (
	ErrMalformed          Failure = "malformed"
	ErrDuplicateKey       Failure = "duplicate_key"
	ErrOversize           Failure = "oversize"
	ErrUnknownAlgorithm   Failure = "unknown_algorithm"
	ErrUnknownType        Failure = "unknown_type"
	ErrWeakKey            Failure = "weak_key"
	ErrBadDeviceID        Failure = "bad_device_id"
	ErrWrongDevice        Failure = "wrong_device"
	ErrUnsignedDevice     Failure = "unsigned_device"
	ErrForgedSignature    Failure = "forged_signature"
	ErrNoIdentity         Failure = "no_identity"
	ErrIdentityChanged    Failure = "identity_changed"
	ErrDeviceChanged      Failure = "device_changed"
	ErrDehydratedSender   Failure = "dehydrated_sender"
	ErrAlteredHeader      Failure = "altered_header"
	ErrWrongRecipient     Failure = "wrong_recipient"
	ErrForeignIdentity    Failure = "foreign_identity"
	ErrWrongSender        Failure = "wrong_sender"
	ErrReplayedMessage    Failure = "replayed_message"
	ErrExpired            Failure = "expired"
	ErrUndecryptable      Failure = "undecryptable"
	ErrNoKey              Failure = "no_key"
	ErrUnknownIndex       Failure = "unknown_index"
	ErrWrongRoom          Failure = "wrong_room"
	ErrReplayedIndex      Failure = "replayed_index"
	ErrAlteredRelation    Failure = "altered_relation"
	ErrConflictingSession Failure = "conflicting_session"
	ErrTooManySessions    Failure = "too_many_sessions"
	ErrWrongHash          Failure = "wrong_hash"
)

func (f Failure) Error() string { return "sealed: " + string(f) }

// because makes a refusal of this class that says what was wrong.
func (f Failure) because(format string, args ...any) error {
	return fmt.Errorf("%w: %s", f, fmt.Sprintf(format, args...))
}

// ClassOf returns the class that an error of this package belongs to; "" for any other error, such as one of a reader.
func ClassOf(err error) Failure {
	var f Failure
	errors.As(err, &f)
	return f
}

// jsonFailure gives an error of the JSON scanner its class.
func jsonFailure(err error) error {
	if errors.Is(err, matrix.ErrDuplicateName) {
		return ErrDuplicateKey.because("%v", err)
	}
	return ErrMalformed.because("%v", err)
}
