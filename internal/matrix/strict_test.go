package matrix

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"

	"conclave/internal/testserver/proof"
)

// TestStrictJSON is what the one decoder takes and what it refuses. canon is the canonical form, "" where it is refused;
// strict says whether the numbers are those of canonical JSON.
func TestStrictJSON(t *testing.T) {
	proof.Of(t, "JS-01", "JS-03")
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	many := func(n int) string { return "[" + strings.Repeat("0,", n-1) + "0]" }
	for _, c := range []struct {
		name, text, canon string
		strict            bool
	}{
		{"order", `{"b":1,"a":2}`, `{"a":2,"b":1}`, true},
		{"order by code point", `{"\ud83d\ude00":1,"\uffff":2,"z":3}`, "{\"z\":3,\"\uffff\":2,\"\U0001f600\":1}", true},
		{"white space", " \t\r\n{ \"a\" : [ 1 , 2 ] } \n", `{"a":[1,2]}`, true},
		{"escapes", `{"a":"\u0041\/\u00e9\n\u001f\"\\\u007f"}`, "{\"a\":\"A/é\\n\\u001f\\\"\\\\\x7f\"}", true},
		{"NUL in a value", `{"a":"\u0000"}`, `{"a":"\u0000"}`, true},
		{"words", `[true,false,null]`, `[true,false,null]`, true},
		{"largest numbers", `[9007199254740991,-9007199254740991,0]`, `[9007199254740991,-9007199254740991,0]`, true},
		{"too large", `[9007199254740992]`, `[9007199254740992]`, false},
		{"too small", `[-9007199254740992]`, `[-9007199254740992]`, false},
		{"beyond 64 bits", `[99999999999999999999]`, `[99999999999999999999]`, false},
		{"fraction", `[1.5]`, `[1.5]`, false},
		{"whole fraction", `[1.0]`, `[1]`, false},
		{"exponent", `[1e10]`, `[10000000000]`, false},
		{"minus zero", `[-0]`, `[0]`, false},
		{"twice the same name", `{"a":1,"a":1}`, "", false},
		{"twice the same name, once escaped", `{"a":1,"\u0061":1}`, "", false},
		{"twice the same name among many", manyNames(40, "n7"), "", false},
		{"many names", manyNames(40, "other"), string(mustCanonical(t, []byte(manyNames(40, "other")))), true},
		{"the same name at another level", `{"a":{"a":1}}`, `{"a":{"a":1}}`, true},
		{"as deep as allowed", deep(64), deep(64), true},
		{"deeper", deep(65), "", false},
		{"as many as allowed", many(10_000), many(10_000), true},
		{"more", many(10_001), "", false},
		{"nothing", "", "", false},
		{"white space alone", "  ", "", false},
		{"byte order mark", "\ufeff{}", "", false},
		{"something behind", `{}{}`, "", false},
		{"a comma too many", `[1,]`, "", false},
		{"a comma too many in an object", `{"a":1,}`, "", false},
		{"no colon", `{"a" 1}`, "", false},
		{"name without quotes", `{a:1}`, "", false},
		{"single quotes", `['a']`, "", false},
		{"comment", `[1/**/]`, "", false},
		{"leading zero", `[01]`, "", false},
		{"plus", `[+1]`, "", false},
		{"point without digits", `[1.]`, "", false},
		{"exponent without digits", `[1e]`, "", false},
		{"minus alone", `[-]`, "", false},
		{"not a number", `[NaN]`, "", false},
		{"half a word", `[tru]`, "", false},
		{"word in capitals", `[True]`, "", false},
		{"control character", "[\"a\x01\"]", "", false},
		{"raw newline", "[\"a\nb\"]", "", false},
		{"unknown escape", `["\x41"]`, "", false},
		{"half an escape", `["\u00"]`, "", false},
		{"lone high surrogate", `["\ud800"]`, "", false},
		{"lone low surrogate", `["\udc00"]`, "", false},
		{"high surrogate before a letter", `["\ud800\u0041"]`, "", false},
		{"surrogate in UTF-8", "[\"\xed\xa0\x80\"]", "", false},
		{"overlong", "[\"\xc0\xaf\"]", "", false},
		{"no UTF-8", "[\"\xff\"]", "", false},
		{"no end of a string", `["a`, "", false},
		{"no end of an object", `{"a":1`, "", false},
	} {
		got, err := CanonicalJSON([]byte(c.text))
		if string(got) != c.canon || (err != nil) != (c.canon == "") {
			t.Errorf("%s: %.80q becomes %.80q, %v", c.name, c.text, got, err)
		}
		if err != nil && !errors.Is(err, ErrJSON) {
			t.Errorf("%s: refused with %v", c.name, err)
		}
		if _, err := StrictCanonicalJSON([]byte(c.text)); (err == nil) != c.strict {
			t.Errorf("%s: strictly %v", c.name, err)
		}
	}
	if err := CheckJSON([]byte(`[1,2,3]`), Limits{Bytes: 6}); err == nil {
		t.Error("a text longer than its bound")
	}
}

// manyNames is an object with more names than are compared one by one, and one more.
func manyNames(n int, last string) string {
	var b strings.Builder
	b.WriteString("{")
	for i := range n {
		b.WriteString(`"n` + string(rune('0'+i%10)) + strings.Repeat("x", i/10) + `":1,`)
	}
	return b.String() + `"` + last + `":1}`
}

// TestDecode reads typed bodies: names match exactly, nothing comes twice, and what does not fit is M_BAD_JSON.
func TestDecode(t *testing.T) {
	type inner struct {
		Name string `json:"name"`
	}
	type body struct {
		inner
		User   string           `json:"user"`
		Limit  *int             `json:"limit"`
		List   []inner          `json:"list"`
		Map    map[string]inner `json:"map"`
		Raw    json.RawMessage  `json:"raw"`
		Hidden string           `json:"-"`
	}
	var b body
	text := `{"User":"wrong","user":"right","name":"n","limit":3,"list":[{"Name":"x","name":"a"},{}],"map":{"k":{"name":"m"}},"raw":{"a":[1]},"more":7,"Hidden":"h","-":"h"}`
	if err := Decode([]byte(text), &b); err != nil {
		t.Fatal(err)
	}
	if b.User != "right" || b.Name != "n" || *b.Limit != 3 || len(b.List) != 2 || b.List[0].Name != "a" || b.Map["k"].Name != "m" ||
		string(b.Raw) != `{"a":[1]}` || b.Hidden != "" {
		t.Errorf("read as %+v", b)
	}
	for text, code := range map[string]string{
		``: "M_NOT_JSON", `{`: "M_NOT_JSON", `{"user":"a","user":"b"}`: "M_NOT_JSON", `{} {}`: "M_NOT_JSON", "{\"user\":\"\xff\"}": "M_NOT_JSON",
		`[]`: "M_BAD_JSON", `7`: "M_BAD_JSON", `{"user":7}`: "M_BAD_JSON", `{"limit":"3"}`: "M_BAD_JSON", `{"limit":1.5}`: "M_BAD_JSON",
		`{"list":{}}`: "M_BAD_JSON", `{"list":[7]}`: "M_BAD_JSON", `{"map":[]}`: "M_BAD_JSON", `{"limit":99999999999999999999}`: "M_BAD_JSON",
	} {
		var e *Error
		if err := Decode([]byte(text), &body{}); !errors.As(err, &e) || e.Code != code {
			t.Errorf("%s: %v, want %s", text, err, code)
		}
	}
	for _, text := range []string{`{"limit":null,"list":null,"map":null,"user":null}`, `{}`} {
		if err := Decode([]byte(text), &body{}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestIdentifiers(t *testing.T) {
	proof.Of(t, "ID-01", "ID-02", "ID-05", "ID-06", "ID-07", "ID-08")
	long := strings.Repeat("x", 250)
	for text, want := range map[string]string{ // the kinds that it is one of
		"@a:b": "user", "@a:b.example:8448": "user", "@:b": "user", "@A!~:b": "user", "@ü:b": "user", "@a:[::1]:80": "user", "@a:1.2.3.4": "user",
		"@a": "", "@a:": "", "@a:b:x": "", "@a:b:0": "", "@a:b:65536": "", "@a:b_c": "", "@a:b/": "", "@a\x00:b": "", "@a\n:b": "user", "@\x7f\x01 \":b": "user", "@\xff:b": "", "@\xed\xa0\x80:b": "",
		"@" + long + ":b": "user", "@" + long + "xx:b": "user", "@" + long + "xxx:b": "", "a:b": "", "": "", "@": "",
		"#a:b": "alias", "# :b": "alias", "#a": "", "#a:": "",
		"!a:b": "room", "!": "", "!abc": "room", "!a:": "", "!a:b/c": "", "!a\x00": "",
		"$a:b": "event", "$": "", "$abc": "event", "$a\x00": "", "$" + long + "xxxxx": "",
	} {
		kinds := ""
		if _, err := ParseUserID(text); err == nil {
			kinds += "user"
		}
		if _, err := ParseAlias(text); err == nil {
			kinds += "alias"
		}
		if _, err := ParseRoomID(text); err == nil {
			kinds += "room"
		}
		if _, err := ParseEventID(text); err == nil {
			kinds += "event"
		}
		if kinds != want {
			t.Errorf("%.40q is %q, want %q", text, kinds, want)
		}
	}
	for name, ok := range map[string]bool{
		"a": true, "a.example": true, "a-b": true, "1.2.3.4": true, "[::1]": true, "[2001:db8::1]:8448": true, "a:1": true, "A.Example": true,
		"": false, "a:": false, ":1": false, "a:x": false, "a:+1": false, "a:000001": false, "[::1": false, "::1": false, "[1.2.3.4]": false,
		"[fe80::1%eth0]": false, "a b": false, "a_b": false, "ä": false, "a/b": false, "a@b": false, strings.Repeat("a", 231): false, "[::1]x": false,
	} {
		if _, err := ParseServerName(name); (err == nil) != ok {
			t.Errorf("server name %q: %v", name, err)
		}
	}
	for name, ok := range map[string]bool{"a": true, "a.b_c=d-e/f+0": true, "": false, "A": false, "a b": false, "ä": false, "a:b": false} {
		if ValidLocalpart(name) != ok {
			t.Errorf("localpart %q may be given: %v", name, !ok)
		}
	}
	u := UserID("@a:b.example:8448")
	host, port, ip := u.Server().HostPort()
	if u.Localpart() != "a" || host != "b.example" || port != 8448 || ip {
		t.Errorf("%s is %q at %q, %d, %v", u, u.Localpart(), host, port, ip)
	}
	if host, port, ip := ServerName("[::1]:80").HostPort(); host != "::1" || port != 80 || !ip {
		t.Errorf("[::1]:80 is %q, %d, %v", host, port, ip)
	}
}

func TestServerACL(t *testing.T) {
	proof.Of(t, "FD-17", "ID-13")
	for _, c := range []struct {
		content string
		allowed string
		refused string
	}{
		{`{"allow":["*"]}`, "a.example 1.2.3.4 [::1] A.EXAMPLE a.example:8448", ""},
		{`{}`, "", "a.example"},
		{`{"allow":[]}`, "", "a.example"},
		{`{"allow":["*"],"deny":["*.evil.example","evil.example"]}`, "a.example notevil.example", "evil.example x.evil.example EVIL.example evil.example:1 X.Evil.Example:99"},
		{`{"allow":["*.good.example"]}`, "a.good.example A.GOOD.example", "good.example evil.example"},
		{`{"allow":["*"],"allow_ip_literals":false}`, "a.example 1.2.3.4.example", "1.2.3.4 [::1] 1.2.3.4:80 [2001:db8::1]:8448"},
		{`{"allow":["*"],"allow_ip_literals":"false"}`, "1.2.3.4", ""},
		{`{"allow":["?.example"]}`, "a.example b.example", "aa.example .example"},
		{`{"allow":["*",7,null],"deny":[{},"x"]}`, "a.example", "x"},
		{`{"allow":"*"}`, "", "a.example"},
		{`{"allow":["*"],"deny":["*"]}`, "", "a.example"},
	} {
		acl := ParseServerACL([]byte(c.content))
		for _, name := range strings.Fields(c.allowed) {
			if !acl.Allowed(ServerName(name)) {
				t.Errorf("%s shuts %s out", c.content, name)
			}
		}
		for _, name := range strings.Fields(c.refused) {
			if acl.Allowed(ServerName(name)) {
				t.Errorf("%s allows %s", c.content, name)
			}
		}
	}
}

// FuzzJSON holds the properties of canonical JSON over hostile texts: what the scanner takes, encoding/json takes too;
// the canonical form is its own canonical form and says the same; members can be found in it.
func FuzzJSON(f *testing.F) {
	for _, text := range []string{`{"a":1}`, `{"b":[1,2.5e3,-0],"a":{"\u0061":"\ud83d\ude00"}}`, `[true,null,"\n"]`, `{"":{}}`, `"x"`, `1e400`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		canon, err := CanonicalJSON(data)
		if err != nil {
			if _, err := StrictCanonicalJSON(data); err == nil {
				t.Fatal("strictly it is taken")
			}
			return
		}
		if !json.Valid(data) || !json.Valid(canon) {
			t.Fatalf("%q or %q is not JSON", data, canon)
		}
		again, err := CanonicalJSON(canon)
		if err != nil || !bytes.Equal(again, canon) {
			t.Fatalf("%q is canonically %q, %v", canon, again, err)
		}
		if firstByte(canon) != '{' {
			return
		}
		members, err := Members(canon)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			if got, ok := Get(canon, m.Key); !ok || !bytes.Equal(got, m.Value) {
				t.Fatalf("%q is not found in %q", m.Key, canon)
			}
		}
	})
}

// FuzzDecode reads hostile bodies into a type with everything in it.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"a":"x","list":[{"n":1}],"map":{"k":[1]},"raw":{},"p":{"n":2}}`))
	f.Add([]byte(`{"a":null,"list":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v struct {
			A    string `json:"a"`
			List []struct {
				N int64 `json:"n"`
			} `json:"list"`
			Map map[UserID][]int   `json:"map"`
			Raw json.RawMessage    `json:"raw"`
			P   *struct{ N int16 } `json:"p"`
		}
		if err := Decode(data, &v); err == nil && v.Raw != nil && CheckJSON(v.Raw, Limits{}) != nil {
			t.Errorf("%q is not JSON", v.Raw)
		}
	})
}

// FuzzIdentifiers: what is taken has its parts, and fits the bounds.
func FuzzIdentifiers(f *testing.F) {
	for _, text := range []string{"@a:b", "!a:b", "$a", "#a:b:80", "@a:[::1]:8448", "[::1]", "a.example:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if u, err := ParseUserID(text); err == nil {
			if _, err := ParseServerName(string(u.Server())); err != nil || "@"+u.Localpart()+":"+string(u.Server()) != text || len(text) > maxID {
				t.Errorf("user %q has parts %q and %q", text, u.Localpart(), u.Server())
			}
		}
		if r, err := ParseRoomID(text); err == nil {
			if _, named := r.Server(); named != strings.Contains(text, ":") {
				t.Errorf("room %q names a server: %v", text, named)
			}
		}
		if s, err := ParseServerName(text); err == nil {
			if host, port, _ := s.HostPort(); host == "" || port < 0 || port > 65535 {
				t.Errorf("server %q is %q and %d", text, host, port)
			}
		}
		_, _ = ParseEventID(text)
		_, _ = ParseAlias(text)
	})
}

// FuzzServerACL reads hostile lists; what allows nobody allows nobody in capitals either.
func FuzzServerACL(f *testing.F) {
	f.Add([]byte(`{"allow":["*"],"deny":["*.evil.example"],"allow_ip_literals":false}`), "x.evil.example")
	f.Add([]byte(`{"allow":["*a*a*a*a*b"]}`), strings.Repeat("a", 200))
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		content, err := CanonicalJSON(data)
		if err != nil {
			return
		}
		if _, err := ParseServerName(name); err != nil {
			return
		}
		acl := ParseServerACL(content)
		if acl.Allowed(ServerName(name)) != acl.Allowed(ServerName(strings.ToUpper(name))) {
			t.Errorf("%s tells %q by its case", content, name)
		}
	})
}

func TestNamespacedNames(t *testing.T) {
	proof.Of(t, "ID-10")
	for name, ok := range map[string]bool{
		"m.tz": true, "displayname": true, "org.example.my-thing_2": true, "a": true, strings.Repeat("x", 255): true,
		"": false, "2a": false, ".a": false, "_a": false, "A": false, "aB": false, "a b": false, "a/b": false, "ä": false, "a\x00": false, strings.Repeat("x", 256): false,
	} {
		if IsNamespaced(name) != ok {
			t.Errorf("%.40q: %v", name, !ok)
		}
	}
}

func TestOpaqueNames(t *testing.T) {
	proof.Of(t, "ID-09")
	for name, ok := range map[string]bool{
		"a": true, "Z": true, "0": true, "-._~": true, "AZaz09-._~": true, strings.Repeat("~", 255): true,
		"": false, "a b": false, "a/b": false, "a+b": false, "a=b": false, "a:b": false, "ä": false, "a\x00": false, "a\n": false, strings.Repeat("x", 256): false,
	} {
		if IsOpaque(name) != ok {
			t.Errorf("%.40q: %v", name, !ok)
		}
	}
}

// TestCompliantUsers: historical user IDs are read, and told from those that may be referred to outside of events.
func TestCompliantUsers(t *testing.T) {
	proof.Of(t, "ID-03")
	for id, ok := range map[string]bool{
		"@a:x": true, "@A!~:x": true, "@a.b_c=d-e/f+g:x": true, "@:x": false, "@a b:x": false, "@ä:x": false, "@a\x7f:x": false, "@a\tb:x": false,
	} {
		if u, err := ParseUserID(id); err != nil || u.Compliant() != ok {
			t.Errorf("%q: %v, %v", id, !ok, err)
		}
	}
}

// TestRoomVersionNames: ours are written as the grammar says, and nothing else is taken for one of them: to others a
// version's name means nothing but itself.
func TestRoomVersionNames(t *testing.T) {
	proof.Of(t, "ID-11")
	grammar := regexp.MustCompile(`^[a-z0-9.-]{1,32}$`)
	for _, v := range RoomVersions() {
		again, ok := ParseRoomVersion(v.String())
		if !grammar.MatchString(v.String()) || !ok || again != v {
			t.Errorf("version %d is %q, which is read as %d (%v)", v, v.String(), again, ok)
		}
	}
	for _, name := range []string{"", "0", "13", "01", "+1", "1.0", "1 ", " 1", "1\n", "V1", "org.example.1", "\u0661", "1e1", "267", strings.Repeat("1", 33)} {
		if v, ok := ParseRoomVersion(name); ok {
			t.Errorf("%q is taken for version %d", name, v)
		}
	}
}
