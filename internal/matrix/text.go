package matrix

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// IsText says whether a string is what identifiers, JSON and databases can hold: UTF-8 without NUL.
func IsText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// CheckQuery refuses an address whose query names or gives what is not text.
func CheckQuery(u *url.URL) error {
	if !strings.ContainsFunc(u.RawQuery, func(c rune) bool { return c == '%' || c >= utf8.RuneSelf }) {
		return nil // nothing in it stands for another byte
	}
	for name, values := range u.Query() {
		for _, text := range append(values, name) {
			if !IsText(text) {
				return InvalidParam("The parameter %.64q is not text.", name)
			}
		}
	}
	return nil
}
