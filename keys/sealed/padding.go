package sealed

import (
	"bytes"
	"math/bits"
)

// smallest is the length to which short messages are padded, so that "yes" looks like "certainly not".
const smallest = 256

// paddedLength is the length that a plaintext of n bytes gets: 256, or beyond that the Padmé length, which leaves an
// observer O(log log n) bits about the length and costs at most 12%.
func paddedLength(n int) (int, error) {
	padded := smallest
	if n > smallest {
		exponent := bits.Len(uint(n)) - 1
		free := exponent - bits.Len(uint(exponent))
		mask := 1<<free - 1
		padded = (n + mask) &^ mask
	}
	if padded > maxPlaintext {
		return 0, ErrOversize.because("a plaintext of %d bytes", n)
	}
	return padded, nil
}

// pad adds trailing spaces, which JSON does not mind.
func pad(text []byte) ([]byte, error) {
	n, err := paddedLength(len(text))
	if err != nil {
		return nil, err
	}
	return append(text, bytes.Repeat([]byte{' '}, n-len(text))...), nil
}
