package media

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/charset"
	"golang.org/x/text/encoding"

	"conclave/internal/netguard"
)

// Bounds of what is read of a page. The page is read as a stream of tokens and never built as a tree, so that deep nesting
// costs nothing (threats O07, CVE-2022-31052).
const (
	maxTokens     = 50_000
	maxProperties = 32
	maxText       = 1 << 10 // bytes of one property
	charsetPeek   = 1024    // bytes in which a page has to name its encoding (HTML, "prescan")
)

// pageHead is what a page says of itself: the first value of each property, and under names of our own what stands
// elsewhere than in a meta element.
type pageHead struct{ said map[string]string }

const (
	saidTitle = "<title>"
	saidImage = "<link rel=image_src>"
)

// readHead reads a page up to the end of its head. A page that is cut off at its bound is one whose head ends there.
func readHead(page io.Reader, contentType string) (*pageHead, error) {
	text, err := inUTF8(page, contentType)
	if err != nil {
		return nil, err
	}
	head := &pageHead{said: map[string]string{}}
	z := html.NewTokenizer(text)
	for range maxTokens {
		kind := z.Next()
		switch kind {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) && !errors.Is(err, netguard.ErrTooLarge) {
				return nil, err
			}
			return head, nil
		case html.StartTagToken, html.SelfClosingTagToken, html.EndTagToken:
			if head.tag(z, kind) {
				return head, nil
			}
		}
	}
	return head, nil
}

// inUTF8 decodes a page: by its byte order mark, its Content-Type or what it says itself, and as UTF-8 where nobody says
// anything. A character may become three times as long: the result is bounded as the page is.
func inUTF8(page io.Reader, contentType string) (io.Reader, error) {
	in := bufio.NewReaderSize(page, charsetPeek)
	first, err := in.Peek(charsetPeek)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	from, name, certain := charset.DetermineEncoding(first, contentType)
	said := certain || name != "windows-1252" || bytes.Contains(bytes.ToLower(first), []byte("charset"))
	if from == encoding.Nop || !said && utf8.Valid(first) {
		return in, nil
	}
	return io.LimitReader(from.NewDecoder().Reader(in), maxPage), nil
}

// tag reads a tag, and reports whether the head ends with it.
func (h *pageHead) tag(z *html.Tokenizer, kind html.TokenType) (end bool) {
	raw, attributes := z.TagName()
	name := string(raw)
	if kind == html.EndTagToken {
		return name == "head"
	}
	switch {
	case name == "body":
		return true
	case name == "title" && kind == html.StartTagToken:
		if z.Next() == html.TextToken {
			h.note(saidTitle, string(z.Text()))
		}
	case name == "meta" && attributes:
		a := attributesOf(z, "property", "name", "content")
		for _, property := range []string{a["property"], a["name"]} {
			if property = strings.ToLower(strings.TrimSpace(property)); wanted(property) {
				h.note(property, a["content"])
			}
		}
	case name == "link" && attributes:
		if a := attributesOf(z, "rel", "href"); strings.EqualFold(strings.TrimSpace(a["rel"]), "image_src") {
			h.note(saidImage, a["href"])
		}
	}
	return false
}

// attributesOf reads the wanted attributes of a tag, the first of each name.
func attributesOf(z *html.Tokenizer, wanted ...string) map[string]string {
	found := map[string]string{}
	for more := true; more; {
		var key, value []byte
		key, value, more = z.TagAttr()
		for _, name := range wanted {
			if _, twice := found[name]; string(key) == name && !twice {
				found[name] = string(value)
			}
		}
	}
	return found
}

// propertyForm is what the name of a property looks like.
var propertyForm = regexp.MustCompile(`^og:[a-z_]{1,32}(:[a-z_]{1,32})?$`)

// instead are properties that are read where the page has none of OpenGraph.
var instead = map[string][]string{
	"og:title":       {"twitter:title", saidTitle},
	"og:description": {"twitter:description", "description"},
}

// images are where the address of a page's picture may stand, the best first.
var images = []string{"og:image", "og:image:url", "og:image:secure_url", "twitter:image", "twitter:image:src", saidImage}

// wanted says whether a property is read at all.
func wanted(name string) bool {
	switch name {
	case "description", "twitter:title", "twitter:description", "twitter:image", "twitter:image:src":
		return true
	}
	return propertyForm.MatchString(name)
}

// note keeps what a page says, the first time that it says something.
func (h *pageHead) note(name, value string) {
	if h.said[name] != "" || len(h.said) >= maxProperties {
		return
	}
	if isAddress(name) {
		value = strings.TrimSpace(value)
		if len(value) > maxPageURL {
			return
		}
	} else {
		value = plain(value)
	}
	if value != "" {
		h.said[name] = value
	}
}

// isAddress says whether the value of a property is the address of something.
func isAddress(name string) bool {
	if name == "og:url" || name == "og:see_also" {
		return true
	}
	for _, image := range images {
		if name == image {
			return true
		}
	}
	return false
}

// tell puts what is passed on into a preview. Pictures, films and sounds are not: a client that loaded them would tell
// their servers who reads the message. Addresses are such that a client may make links of them.
func (h *pageHead) tell(told Preview) {
	for name, value := range h.said {
		family, _, _ := strings.Cut(strings.TrimPrefix(name, "og:"), ":")
		switch {
		case !strings.HasPrefix(name, "og:"), family == "image", family == "video", family == "audio":
		case isAddress(name) && !isLink(value):
		default:
			told[name] = value
		}
	}
	for name, others := range instead {
		for _, other := range others {
			if _, there := told[name]; !there && h.said[other] != "" {
				told[name] = h.said[other]
			}
		}
	}
}

// isLink says whether a client may follow an address.
func isLink(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil && text == plain(text)
}

// image is the address of the page's picture, nil if it names none.
func (h *pageHead) image(page *url.URL) *url.URL {
	for _, name := range images {
		if text := h.said[name]; text != "" {
			if u, err := page.Parse(text); err == nil {
				u.Fragment, u.RawFragment = "", ""
				return u
			}
		}
	}
	return nil
}

// plain is a text as it may be shown: one line of valid UTF-8, without control characters and without those that turn the
// direction of what follows, cut at a character within its bound.
func plain(text string) string {
	const cut = "…"
	var b strings.Builder
	space := false
	for _, r := range text { // what is not UTF-8 reads as U+FFFD
		switch {
		case unicode.IsSpace(r):
			space = b.Len() > 0
			continue
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\uFEFF':
			continue
		}
		if b.Len()+1+utf8.RuneLen(r)+len(cut) > maxText {
			b.WriteString(cut)
			break
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(r)
	}
	return b.String()
}
