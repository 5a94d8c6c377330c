package federation

import (
	"bytes"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
)

var testSignature = strings.Repeat("A", 86) // 64 zero bytes

func TestParseXMatrix(t *testing.T) {
	proof.Of(t, "FD-09")
	want := Credentials{Origin: "a.test", Destination: "b.test:8448", Key: "ed25519:k_1", Signature: make([]byte, 64)}
	s := `sig="` + testSignature + `"`
	for name, header := range map[string]string{
		"as the spec writes it":  `X-Matrix origin="a.test",destination="b.test:8448",key="ed25519:k_1",` + s,
		"bare values and colons": `X-Matrix origin=a.test,destination=b.test:8448,key=ed25519:k_1,sig=` + testSignature,
		"any order":              `X-Matrix ` + s + `,key="ed25519:k_1",destination="b.test:8448",origin="a.test"`,
		"any case":               `x-matrix ORIGIN="a.test",Destination="b.test:8448",kEY="ed25519:k_1",` + s,
		"blanks":                 "X-Matrix   origin=\"a.test\" ,\tdestination=\"b.test:8448\" \t , key=\"ed25519:k_1\"," + s + " ",
		"escapes":                `X-Matrix origin="a\.te\st",destination="b.test\:8448",key="ed25519:k_1",` + s,
		"unknown parameters":     `X-Matrix origin="a.test",x="y, \"z\"",destination="b.test:8448",key="ed25519:k_1",` + s,
		"signature by long name": `X-Matrix origin="a.test",destination="b.test:8448",key="ed25519:k_1",signature="` + testSignature + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseXMatrix(header)
			if err != nil {
				t.Fatal(err)
			}
			if got.Origin != want.Origin || got.Destination != want.Destination || got.Key != want.Key || !bytes.Equal(got.Signature, want.Signature) {
				t.Errorf("got %+v", got)
			}
		})
	}
	without, err := ParseXMatrix(`X-Matrix origin="a.test",key="ed25519:k_1",` + s)
	if err != nil || without.Destination != "" {
		t.Errorf("without destination: %+v, %v", without, err)
	}
	t.Run("as it is written", func(t *testing.T) {
		proof.Of(t, "FD-10")
		if got := want.String(); got != `X-Matrix origin="a.test",destination="b.test:8448",key="ed25519:k_1",`+s {
			t.Errorf("written as %s", got)
		}
	})
	if again, err := ParseXMatrix(want.String()); err != nil || again.String() != want.String() {
		t.Errorf("a header that was written cannot be read: %+v, %v", again, err)
	}
}

func TestParseXMatrixRefuses(t *testing.T) {
	s := `sig="` + testSignature + `"`
	good := `origin="a.test",destination="b.test",key="ed25519:k",` + s
	for name, header := range map[string]string{
		"empty":               "",
		"another scheme":      "Bearer abc",
		"no blank":            "X-Matrix" + good,
		"nothing after":       "X-Matrix ",
		"twice":               "X-Matrix " + good + `,origin="c.test"`,
		"twice in other case": "X-Matrix " + good + `,ORIGIN="a.test"`,
		"no origin":           `X-Matrix destination="b.test",key="ed25519:k",` + s,
		"empty origin":        `X-Matrix origin="",destination="b.test",key="ed25519:k",` + s,
		"origin not a name":   `X-Matrix origin="a test",destination="b.test",key="ed25519:k",` + s,
		"control character":   "X-Matrix origin=\"a.te\x00st\",destination=\"b.test\",key=\"ed25519:k\"," + s,
		"escaped control":     "X-Matrix origin=\"a.te\\\x00st\",destination=\"b.test\",key=\"ed25519:k\"," + s,
		"bad destination":     `X-Matrix origin="a.test",destination="b/test",key="ed25519:k",` + s,
		"no key":              `X-Matrix origin="a.test",destination="b.test",` + s,
		"another algorithm":   `X-Matrix origin="a.test",destination="b.test",key="rsa:k",` + s,
		"key without version": `X-Matrix origin="a.test",destination="b.test",key="ed25519:",` + s,
		"odd key version":     `X-Matrix origin="a.test",destination="b.test",key="ed25519:k\"",` + s,
		"no signature":        `X-Matrix origin="a.test",destination="b.test",key="ed25519:k"`,
		"short signature":     `X-Matrix origin="a.test",destination="b.test",key="ed25519:k",sig="AAAA"`,
		"open quote":          `X-Matrix origin="a.test`,
		"open escape":         `X-Matrix origin="a.test\`,
		"no comma":            `X-Matrix origin="a.test" destination="b.test",key="ed25519:k",` + s,
		"no equals sign":      `X-Matrix origin,destination="b.test",key="ed25519:k",` + s,
		"comma at the end":    "X-Matrix " + good + ",",
		"too long":            "X-Matrix " + good + `,x="` + strings.Repeat("x", maxCredentials) + `"`,
	} {
		if c, err := ParseXMatrix(header); err == nil {
			t.Errorf("%s: read as %+v", name, c)
		}
	}
}

func FuzzParseXMatrix(f *testing.F) {
	s := `sig="` + testSignature + `"`
	f.Add(`X-Matrix origin="a.test",destination="b.test:8448",key="ed25519:k_1",` + s)
	f.Add("x-matrix  a=b , origin=\"\\a\",key=ed25519:x," + s)
	f.Fuzz(func(t *testing.T, header string) {
		c, err := ParseXMatrix(header)
		if err != nil {
			return
		}
		again, err := ParseXMatrix(c.String())
		if err != nil || again.String() != c.String() {
			t.Errorf("%q was read as %+v, which reads as %+v, %v", header, c, again, err)
		}
	})
}

func TestSignedRequestIsCanonical(t *testing.T) {
	proof.Of(t, "FD-07")
	got, err := signedRequest("PUT", "/x?a=b", "a.test", "b.test", []byte(`{ "b": 1, "a": "é" }`))
	want := `{"content":{"a":"é","b":1},"destination":"b.test","method":"PUT","origin":"a.test","uri":"/x?a=b"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
	canonical, err := matrix.CanonicalJSON(got)
	if err != nil || !bytes.Equal(canonical, got) {
		t.Errorf("canonical form differs: %s, %v", canonical, err)
	}
	if got, err = signedRequest("GET", "/x", "a.test", "b.test", nil); err != nil || bytes.Contains(got, []byte("content")) {
		t.Errorf("without a body: %s, %v", got, err)
	}
	if _, err = signedRequest("PUT", "/x", "a.test", "b.test", []byte(`{`)); err == nil {
		t.Error("a body that is not JSON was signed")
	}
}
