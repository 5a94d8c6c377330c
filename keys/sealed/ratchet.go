package sealed

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
)

const saltLength = 16

// A ratchet is the secret of a session at one index. It can be stepped forward only: who has it reads what comes, and
// nothing of what was.
type ratchet [sha256.Size]byte

// step is the value at the next index.
func (r ratchet) step() ratchet {
	mac := hmac.New(sha256.New, r[:])
	mac.Write([]byte{0x02})
	return ratchet(mac.Sum(nil))
}

// at is the value n indices on. Indices are bounded, so that this is never much work.
func (r ratchet) at(n uint32) ratchet {
	for ; n > 0; n-- {
		r = r.step()
	}
	return r
}

// messageKey derives the key and nonce of one message. The salt, drawn for each message, keeps a key from being used
// twice even where an index is.
func (r ratchet) messageKey(salt []byte) (key, nonce []byte, err error) {
	okm, err := hkdf.Key(sha256.New, r[:], salt, AlgorithmGroup, 44)
	if err != nil {
		return nil, nil, err
	}
	return okm[:32], okm[32:], nil
}

// seal encrypts one message, bound to its additional data.
func (r ratchet) seal(salt, plaintext, aad []byte) ([]byte, error) {
	gcm, nonce, err := r.cipher(salt)
	if err != nil {
		return nil, err
	}
	return gcm.Seal(nil, nonce, plaintext, aad), nil
}

// open decrypts one message if its tag holds over the ciphertext and the additional data.
func (r ratchet) open(salt, ciphertext, aad []byte) ([]byte, error) {
	gcm, nonce, err := r.cipher(salt)
	if err != nil {
		return nil, err
	}
	plaintext, err := gcm.Open(nil, nonce, ciphertext, aad)
	if err != nil {
		return nil, ErrUndecryptable
	}
	return plaintext, nil
}

func (r ratchet) cipher(salt []byte) (cipher.AEAD, []byte, error) {
	key, nonce, err := r.messageKey(salt)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	gcm, err := cipher.NewGCM(block)
	return gcm, nonce, err
}
