// Package sealed is Sealed Rooms v1: the end-to-end encryption of Conclave's own client, as a library that stands on
// the specification's pure functions, go-jose and the standard library alone. The client's TypeScript implements the
// same protocol; vectors in testdata hold both to the same bytes (see testdata/README.md).
//
// RSA-OAEP carries keys, AES-256-GCM carries messages, Ed25519 says who sent them. The parts, in the order in which a
// message needs them:
//
//   - A [Device] makes the two key pairs of a device and publishes them, self-signed. An [Identity] holds the
//     cross-signing keys that vouch for the devices of a user.
//   - [ParseCrossSigning] and [Qualify] decide which devices of others may be given a key at all: those signed by an
//     identity that was seen before and is pinned. Whatever a server adds by itself does not qualify.
//   - [Sender.Seal] and [Receiver.Open] carry a message to one device, encrypted to its RSA key and signed by the sender.
//   - An [Outbound] session encrypts the messages of one device in one room; its key travels sealed. [Sessions] holds
//     what others sent of theirs and decrypts.
//   - [Usage.Rotate] says when a session has to be replaced by a fresh one.
//   - [EncryptAttachment] and [DecryptAttachment] do the same for files, in a stream.
//
// Every refusal is one of the named [Failure] classes, so that a caller can tell a key that has yet to come from a
// message that was tampered with. Nothing is ever sent because of a failure, and text in an error holds no content.
//
// What the package does not do: it keeps nothing on disk, asks no server, and pins no identity. Its callers do, and
// must: an index that is not recorded before it is used, or a pin that is not kept, breaks what is promised here.
package sealed

// The algorithms of Sealed Rooms v1, as devices, to-device messages and rooms name them.
const (
	AlgorithmSealed = "im.conclave.sealed.v1" // a message sealed to one device
	AlgorithmGroup  = "im.conclave.group.v1"  // a message to a room
)

// The domains that separate what one kind of signature covers from another.
const (
	ownerDomain = "im.conclave.owner.v1\x00"
	groupDomain = AlgorithmGroup + "\x00"
)

// Bounds, checked before any work is done on input.
const (
	maxEnvelope  = 64 << 10 // bytes of an event or of its content
	maxPlaintext = 40 << 10 // bytes of a padded plaintext
	maxIndex     = 1024     // a session has no index as high as this
	maxName      = 255      // bytes of an identifier
)
