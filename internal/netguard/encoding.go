package netguard

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Decoded returns a reader of an answer's content, without its Content-Encoding. Of the encoded form no more than limit bytes are read; the
// content itself may be far longer, so the caller bounds what it reads of it.
func Decoded(response *http.Response, limit int64) (io.Reader, error) {
	switch encoding := strings.ToLower(strings.Join(response.Header.Values("Content-Encoding"), ",")); encoding {
	case "", "identity":
		return response.Body, nil
	case "gzip":
		packed, err := gzip.NewReader(&bounded{from: response.Body, left: limit + 1})
		if err != nil {
			return nil, fmt.Errorf("reading gzip: %w", err)
		}
		return packed, nil
	default:
		return nil, fmt.Errorf("%.20q: %w", encoding, ErrEncoding)
	}
}

// bounded reads up to a limit and fails beyond it; io.LimitReader would make a cut body look like a short one.
type bounded struct {
	from io.Reader
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, ErrTooLarge
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.from.Read(p)
	b.left -= int64(n)
	return n, err
}
