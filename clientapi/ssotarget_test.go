package clientapi

import "testing"

// TestTargetsKeepTheirQuery gives clients their tokens at addresses of theirs that have a query already.
func TestTargetsKeepTheirQuery(t *testing.T) {
	for target, want := range map[string]string{
		"https://app.example/":                               "https://app.example/?loginToken=a_b-c",
		"https://app.example/?b=2&a=1#here":                  "https://app.example/?b=2&a=1&loginToken=a_b-c#here",
		"https://app.example/?a=1;b=2&c=%zz&d":               "https://app.example/?a=1;b=2&c=%zz&d&loginToken=a_b-c",
		"https://app.example/?loginToken=x&a&login%54oken=y": "https://app.example/?a&loginToken=a_b-c",
		"com.example.app:/back":                              "com.example.app:/back?loginToken=a_b-c",
		"com.example.app:back?x=1":                           "com.example.app:back?x=1&loginToken=a_b-c",
	} {
		got, err := withToken(target, "a_b-c")
		if err != nil || string(got) != want {
			t.Errorf("the token goes to %q, %v, want %q", got, err, want)
		}
	}
}
