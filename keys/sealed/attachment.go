package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"slices"

	"conclave/internal/matrix"
)

// An EncryptedFile is the key to an attachment, in the form of the Matrix specification (version "v2"). Whoever has it
// can read the file and check that it is the very one; it belongs inside an encrypted event only.
type EncryptedFile struct {
	URL  string
	key  [32]byte
	iv   [16]byte // 8 random bytes, then a counter that begins at 0
	hash [sha256.Size]byte
}

// EncryptAttachment encrypts a stream under a fresh key, with bounded memory. The URL of the result is the caller's to
// set when the upload has one.
func EncryptAttachment(dst io.Writer, src io.Reader) (*EncryptedFile, error) {
	f := &EncryptedFile{}
	if _, err := rand.Read(f.key[:]); err != nil {
		return nil, err
	}
	if _, err := rand.Read(f.iv[:8]); err != nil {
		return nil, err
	}
	return f, f.encrypt(dst, src)
}

func (f *EncryptedFile) encrypt(dst io.Writer, src io.Reader) error {
	stream, err := f.stream()
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(dst, sum), cipher.StreamReader{S: stream, R: src}); err != nil {
		return fmt.Errorf("encrypt an attachment: %w", err)
	}
	f.hash = [sha256.Size]byte(sum.Sum(nil))
	return nil
}

// DecryptAttachment copies an encrypted file of at most limit bytes to private, checks its hash, and only then returns a
// reader of what it says: no byte is used before all are known to be the sender's. private must be empty and readable by
// nobody else; the caller disposes of it.
func DecryptAttachment(f *EncryptedFile, src io.Reader, private io.ReadWriteSeeker, limit int64) (io.Reader, error) {
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(private, sum), io.LimitReader(src, limit+1))
	if err != nil {
		return nil, fmt.Errorf("fetch an attachment: %w", err)
	}
	if n > limit {
		return nil, ErrOversize.because("an attachment of more than %d bytes", limit)
	}
	if subtle.ConstantTimeCompare(sum.Sum(nil), f.hash[:]) != 1 {
		return nil, ErrWrongHash
	}
	if _, err := private.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	stream, err := f.stream()
	if err != nil {
		return nil, err
	}
	return cipher.StreamReader{S: stream, R: private}, nil
}

// stream is the key stream from the beginning of the file.
func (f *EncryptedFile) stream() (cipher.Stream, error) {
	block, err := aes.NewCipher(f.key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewCTR(block, f.iv[:]), nil
}

// keyOps are what the key of an attachment is for.
var keyOps = []string{"encrypt", "decrypt"}

// MarshalJSON writes the file's key for the content of an event.
func (f *EncryptedFile) MarshalJSON() ([]byte, error) {
	return encode(map[string]any{
		"v": "v2", "url": f.URL, "iv": matrix.EncodeBase64(f.iv[:]),
		"key": map[string]any{
			"kty": "oct", "alg": "A256CTR", "ext": true, "key_ops": keyOps, "k": matrix.EncodeURLBase64(f.key[:]),
		},
		"hashes": map[string]string{"sha256": matrix.EncodeBase64(f.hash[:])},
	})
}

// ParseEncryptedFile reads a file's key. The counter must begin at 0: two libraries that carry differently out of its 64
// bits would read different files.
func ParseEncryptedFile(text []byte) (*EncryptedFile, error) {
	o := readForm(text, maxEnvelope)
	o.constant("v", "v2")
	_, key := o.object("key")
	_, hashes := o.object("hashes")
	f := &EncryptedFile{URL: o.text("url"), iv: [16]byte(o.bytes("iv", 16))}
	if o.err != nil {
		return nil, o.err
	}
	key.constant("kty", "oct")
	key.constant("alg", "A256CTR")
	ops := key.texts("key_ops")
	if string(key.members["ext"]) != "true" || !slices.Contains(ops, "decrypt") {
		key.fail(ErrMalformed, "the key is not for this use")
	}
	secret, err := decodeURL64(key.text("k"))
	if err != nil || len(secret) != len(f.key) || [8]byte(f.iv[8:]) != [8]byte{} {
		key.fail(ErrMalformed, "the key or its counter is not as it has to be")
	}
	f.hash = [sha256.Size]byte(hashes.bytes("sha256", sha256.Size))
	if key.err != nil || hashes.err != nil {
		return nil, ErrMalformed.because("not an encrypted file")
	}
	f.key = [32]byte(secret)
	return f, nil
}
