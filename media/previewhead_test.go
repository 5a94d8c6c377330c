package media

import (
	"fmt"
	"maps"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/japanese"

	"conclave/internal/testserver/proof"
)

var example = &url.URL{Scheme: "https", Host: "site.example", Path: "/a/b"}

// headOf reads a page as a whole; image is "" if it names none.
func headOf(t testing.TB, page, contentType string) (told Preview, image string) {
	t.Helper()
	head, err := readHead(strings.NewReader(page), contentType)
	if err != nil {
		t.Fatal(err)
	}
	told = Preview{}
	head.tell(told)
	if u := head.image(example); u != nil {
		image = u.String()
	}
	return told, image
}

func TestWhatPagesSay(t *testing.T) {
	proof.Of(t, "ME-07")
	const utf8Page = "text/html; charset=utf-8"
	shiftJIS, err := japanese.ShiftJIS.NewEncoder().String(`<meta charset=shift_jis><title>日本語</title>`)
	must(t, err)
	for name, c := range map[string]struct {
		page, kind string
		told       Preview
		image      string
	}{
		"nothing":    {"", utf8Page, Preview{}, ""},
		"no markup":  {"hello", utf8Page, Preview{}, ""},
		"OpenGraph":  {`<html><head><meta property="og:title" content="A &amp; B"><meta property=og:image content="/i.png"></head>`, utf8Page, Preview{"og:title": "A & B"}, "https://site.example/i.png"},
		"by name":    {`<META NAME="OG:Title" CONTENT="x"/>`, utf8Page, Preview{"og:title": "x"}, ""},
		"more of it": {`<meta property="og:site_name" content="S"><meta property="og:locale:alternate" content="de"><meta property="og:type" content="article">`, utf8Page, Preview{"og:site_name": "S", "og:locale:alternate": "de", "og:type": "article"}, ""},
		"the first":  {`<meta property="og:title" content=""><meta property="og:title" content="1"><meta property="og:title" content="2">`, utf8Page, Preview{"og:title": "1"}, ""},
		"title":      {"<title>\n  Two\r\n\twords </title><title>more</title>", utf8Page, Preview{"og:title": "Two words"}, ""},
		"twitter":    {`<title>t</title><meta name=description content=d><meta name="twitter:title" content="T"><meta name="twitter:description" content="D"><meta name="twitter:image" content="http://i.example/x?a=1&amp;b=2#f">`, utf8Page, Preview{"og:title": "T", "og:description": "D"}, "http://i.example/x?a=1&b=2"},
		"no better":  {`<title>t</title><meta name=description content=d><link rel=image_src href=x.jpg>`, utf8Page, Preview{"og:title": "t", "og:description": "d"}, "https://site.example/a/x.jpg"},
		"the best":   {`<link rel=image_src href=x.jpg><meta name="twitter:image" content=y.jpg><meta property="og:image:secure_url" content=z.jpg>`, utf8Page, Preview{}, "https://site.example/a/z.jpg"},
		"text only":  {"<meta property=og:title content='a\x00b\x1b[31m\u202ec\u2066d\ufeff <b>e</b>\xff'>", utf8Page, Preview{"og:title": "a\ufffdb[31mcd <b>e</b>\ufffd"}, ""},
		"links":      {`<meta property="og:url" content="javascript:alert(1)"><meta property="og:see_also" content="https://u:p@x/">`, utf8Page, Preview{}, ""},
		"a link":     {`<meta property="og:url" content=" https://site.example/c ">`, utf8Page, Preview{"og:url": "https://site.example/c"}, ""},
		"media":      {`<meta property="og:video" content="https://v.example/"><meta property="og:audio:url" content="https://v.example/"><meta property="og:image:width" content="5">`, utf8Page, Preview{}, ""},
		"names":      {`<meta property="og:" content=a><meta property="og:a:b:c" content=a><meta property="matrix:image:size" content=5><meta property="og:image:" content=a>`, utf8Page, Preview{}, ""},
		"in body":    {`<title>t</title><body><meta property="og:title" content="of the body">`, utf8Page, Preview{"og:title": "t"}, ""},
		"after head": {`<head><title>t</title></head><meta property="og:title" content="late">`, utf8Page, Preview{"og:title": "t"}, ""},
		"quoted":     {`<!-- <title>c</title> --><script>"<title>s</title>"</script><style><title>y</title></style><noscript><title>n</title></noscript><textarea><title>a</title></textarea><title>t</title>`, utf8Page, Preview{"og:title": "t"}, ""},
		"doubled":    {`<meta property="og:title" content="1" content="2">`, utf8Page, Preview{"og:title": "1"}, ""},
		"cut off":    {`<title>t</title><meta property="og:description" content="never end`, utf8Page, Preview{"og:title": "t"}, ""},
		"XHTML":      {`<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>é</title></head></html>`, "application/xhtml+xml", Preview{"og:title": "é"}, ""},
		"UTF-8 late": {"<title>" + strings.Repeat("x", 2000) + "</title><meta name=description content=é>", "text/html", Preview{"og:title": strings.Repeat("x", 1020) + "…", "og:description": "é"}, ""},
		"Latin 1":    {"<title>caf\xe9</title>", "text/html; charset=ISO-8859-1", Preview{"og:title": "café"}, ""},
		"its own":    {shiftJIS, "text/html", Preview{"og:title": "日本語"}, ""},
		"a lie":      {"<title>\xff\xfe</title>", utf8Page, Preview{"og:title": "\ufffd\ufffd"}, ""},
		"UTF-16":     {"\xfe\xff\x00<\x00t\x00i\x00t\x00l\x00e\x00>\x00x", "text/html", Preview{"og:title": "x"}, ""},
		"unknown":    {"<title>x</title>", "text/html; charset=klingon", Preview{"og:title": "x"}, ""},
		"no address": {`<meta property=og:image content="http://[::1">`, utf8Page, Preview{}, ""},
	} {
		told, image := headOf(t, c.page, c.kind)
		if !maps.Equal(told, c.told) || image != c.image {
			t.Errorf("%s: %q, image %q, want %q, %q", name, told, image, c.told, c.image)
		}
	}
}

// TestHostileMarkup is the part of threats O07 about reading: what a page of a mebibyte can be made of costs little time
// and memory, and what comes out is bounded.
func TestHostileMarkup(t *testing.T) {
	proof.Of(t, "O07")
	many := func(form string) string {
		var b strings.Builder
		for i := 0; b.Len() < maxPage; i++ {
			fmt.Fprintf(&b, form, i)
		}
		return b.String()[:maxPage]
	}
	letters := func(i int) string {
		return string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26))
	}
	var properties strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&properties, `<meta property="og:%s" content="%s">`, letters(i), strings.Repeat("x", 50))
	}
	for name, page := range map[string]string{
		"nested":         strings.Repeat("<div>", maxPage/5),
		"nested svg":     strings.Repeat("<svg><math>", maxPage/11),
		"never closed":   "<" + strings.Repeat("a", maxPage),
		"open comment":   "<!--" + strings.Repeat("-<!--", maxPage/5),
		"open script":    "<script>" + strings.Repeat("<!--<script>", maxPage/12),
		"open title":     "<title>" + strings.Repeat("&amp;", maxPage/5),
		"one attribute":  `<meta content="` + strings.Repeat("&notin;", maxPage/7),
		"many equal":     strings.Repeat(`<meta property="og:title" content="x">`, maxPage/38),
		"many meta":      properties.String(),
		"attributes":     "<meta " + many("a%d=1 ") + ">",
		"same attribute": "<meta " + strings.Repeat("content=x ", maxPage/10) + ">",
		"ends":           strings.Repeat("</p>", maxPage/4),
		"less than":      strings.Repeat("<", maxPage),
		"NUL":            strings.Repeat("\x00", maxPage),
		"entities":       "<title>" + strings.Repeat("&#x110000;&", maxPage/11),
		"controls":       `<title>` + strings.Repeat("\u202e", maxPage/3) + "</title>",
	} {
		for _, charset := range []string{"utf-8", "iso-2022-jp"} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			told, _ := headOf(t, page, "text/html; charset="+charset)
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			if took > PreviewTime {
				t.Errorf("%s in %s: took %s", name, charset, took)
			}
			if made := after.TotalAlloc - before.TotalAlloc; made > 64<<20 {
				t.Errorf("%s in %s: %d MiB allocated", name, charset, made>>20)
			}
			wantHarmless(t, told)
		}
	}
	if told, _ := headOf(t, properties.String(), "text/html"); len(told) != maxProperties {
		t.Errorf("%d properties of 10,000 are kept", len(told))
	}
	// The bound on tokens: what stands behind it is not read.
	if told, _ := headOf(t, strings.Repeat("<p>", maxTokens)+"<title>x</title>", "text/html"); len(told) != 0 {
		t.Errorf("after %d tokens: %q", maxTokens, told)
	}
}

// wantHarmless checks what may come out of a page at all.
func wantHarmless(t testing.TB, told Preview) {
	t.Helper()
	if len(told) > maxProperties {
		t.Errorf("%d properties", len(told))
	}
	for name, value := range told {
		text, ok := value.(string)
		bad := func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' }
		if !ok || text == "" || len(text) > maxPageURL || !utf8.ValidString(text) || strings.ContainsFunc(text, bad) || text != strings.TrimSpace(text) {
			t.Errorf("%s is %q", name, value)
		}
		if !isAddress(name) && len(text) > maxText {
			t.Errorf("%s has %d bytes", name, len(text))
		}
		if !propertyForm.MatchString(name) || strings.HasPrefix(name, "og:image") || strings.HasPrefix(name, "og:video") || strings.HasPrefix(name, "og:audio") {
			t.Errorf("%q is told", name)
		}
		if name == "og:url" && !strings.HasPrefix(strings.ToLower(text), "http") {
			t.Errorf("og:url is %q", text)
		}
	}
}

// FuzzReadHead holds that no page makes the reader panic, fail or tell what must not be told, in any encoding.
func FuzzReadHead(f *testing.F) {
	for _, page := range []string{
		`<title>x</title>`, `<meta property="og:title" content="&lt;b&gt;">`, `<meta name=twitter:image content="//x">`, "<!doctype html><html><head><link rel=image_src href=a>",
		"\xfe\xff\x00<\x00t", "<meta charset=utf-16><title>\x1b$B", "<title>\u202e", `<meta property=og:url content=javascript:a>`, "<svg><title><![CDATA[", "<plaintext><title>",
	} {
		f.Add([]byte(page), "text/html")
		f.Add([]byte(page), "text/html; charset=shift_jis")
	}
	f.Fuzz(func(t *testing.T, page []byte, contentType string) {
		told, image := headOf(t, string(page), contentType)
		wantHarmless(t, told)
		if u, err := url.Parse(image); image != "" && (err != nil || len(u.Fragment) > 0) {
			t.Errorf("image %q: %v", image, err)
		}
	})
}
