// Package address knows the one form in which an e-mail address is kept, compared and written to (Matrix appendices,
// "3PID Types"). Two addresses that somebody could take for the same are the same here, and mail goes to that form and to no
// other: whoever reads the mail is then who has the address, however it was typed (threats A07).
package address

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
)

// Max bounds an address in bytes: the longest path that mail can take (RFC 5321) is 256 with its brackets.
const Max = 254

// Fold reads an address as somebody typed it into its canonical form: full Unicode case folding of the whole. ok is false
// if it is no address, or one with something around it. Letters such as ß get longer: the bound is on what comes in.
func Fold(text string) (folded string, ok bool) {
	if len(text) > Max || !utf8.ValidString(text) {
		return "", false
	}
	at := strings.LastIndexByte(text, '@')
	if at < 1 || at == len(text)-1 {
		return "", false
	}
	// Blanks would also make the text ambiguous that identity servers hash to look it up.
	odd := strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`<>,;"\`, r)
	})
	if odd {
		return "", false
	}
	return cases.Fold().String(text), true
}

// Mailbox reads an address to which mail is to be sent: Fold, and its parts have to be such that mail can take the way.
// Quoted names, addresses of hosts in brackets and names without a dot are not taken: nobody has them, and they are ways to
// reach what is inside a network.
func Mailbox(text string) (folded string, ok bool) {
	folded, ok = Fold(text)
	if !ok || len(folded) > Max {
		return "", false
	}
	local, domain, _ := strings.Cut(folded, "@")
	if len(local) > 64 || strings.Contains(domain, "@") || !atoms(local) {
		return "", false
	}
	ascii, err := idna.Lookup.ToASCII(domain)
	if err != nil || len(ascii) > 253 || !strings.Contains(ascii, ".") || slices.Contains(strings.Split(ascii, "."), "") || numeric(ascii) {
		return "", false
	}
	return folded, true
}

// Route is the form of a canonical address in which mail servers take it: with its domain in ASCII.
func Route(folded string) string {
	at := strings.LastIndexByte(folded, '@')
	ascii, err := idna.Lookup.ToASCII(folded[at+1:])
	if err != nil {
		return folded
	}
	return folded[:at+1] + ascii
}

// Domain is the part of a canonical address after the @.
func Domain(folded string) string { return folded[strings.LastIndexByte(folded, '@')+1:] }

// atoms says whether the part before the @ needs no quotes (RFC 5322 dot-atom, with letters of all alphabets as in RFC
// 6531).
func atoms(local string) bool {
	for part := range strings.SplitSeq(local, ".") {
		if part == "" {
			return false
		}
		for _, r := range part {
			if r < utf8.RuneSelf && !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~", r) {
				return false
			}
		}
	}
	return true
}

// numeric says whether the last label is a number: that is an IP address and no domain.
func numeric(domain string) bool {
	return strings.Trim(domain[strings.LastIndexByte(domain, '.')+1:], "0123456789") == ""
}
