package address

import (
	"strings"
	"testing"

	"conclave/internal/testserver/proof"
)

func TestMailbox(t *testing.T) {
	proof.Of(t, "ID-12")
	for text, want := range map[string]string{
		"bob@example.org": "bob@example.org", "Bob@Example.ORG": "bob@example.org", "Strauß@Example.com": "strauss@example.com",
		"ΣΊΣΥΦΟΣ@example.gr": "σίσυφοσ@example.gr", "a.b+c@x.example": "a.b+c@x.example", "bob@BÜCHER.example": "bob@bücher.example",
		"bob@ex_ample.org": "", "bob": "", "@example.org": "", "bob@": "", "bob@@example.org": "", "a@b@example.org": "", "bob@localhost": "", "bob@127.0.0.1": "",
		"bob@[127.0.0.1]": "", `"bob x"@example.org`: "", "bob @example.org": "", "Bob <bob@example.org>": "", "bob@example.org\r\nBcc: x@example.org": "",
		"bob@example.org,eve@example.org": "", "bob@example.org.": "", ".bob@example.org": "", "b..ob@example.org": "", "bob@-x.example": "", "bob@x..example": "",
		"bob\x00@example.org": "", "bob\u00a0@example.org": "", "mailto:bob@example.org": "", "\xff@example.org": "", strings.Repeat("a", 65) + "@example.org": "",
		"bob@" + strings.Repeat("a.", 130) + "example": "", "bob(comment)@example.org": "", "root%evil.example@example.org": "root%evil.example@example.org",
	} {
		got, ok := Mailbox(text)
		if ok != (want != "") || got != want {
			t.Errorf("%q is %q %v, want %q", text, got, ok, want)
		}
	}
	if Route("bob@bücher.example") != "bob@xn--bcher-kva.example" || Domain("a@b.example") != "b.example" {
		t.Errorf("%q %q", Route("bob@bücher.example"), Domain("a@b.example"))
	}
}

func FuzzMailbox(f *testing.F) {
	for _, s := range []string{"bob@example.org", "Strauß@Example.com", "İ@example.org", "ǅ@xn--bcher-kva.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		folded, ok := Mailbox(text)
		if !ok {
			return
		}
		if again, ok := Mailbox(folded); !ok && len(folded) <= Max || ok && again != folded {
			t.Errorf("%q is %q, and that is %q %v", text, folded, again, ok)
		}
		if strings.ContainsAny(folded, "\r\n<> ,;\x00") || strings.Count(folded, "@") != 1 || strings.ContainsAny(Route(folded), "\r\n ") {
			t.Errorf("%q is %q", text, folded)
		}
	})
}
