package testserver

import (
	"net/url"
	"testing"
)

// TestLeaks looks for tokens and passwords in all the ways in which a log could tell them, and for what is none: the IDs of
// rooms and events, which are as random.
func TestLeaks(t *testing.T) {
	const token = "ccl_" + "Yc2V0IGlzIHRoZSBmaXJzdCBvZiB0d28ga2V5cyBoZX"
	for _, line := range []string{
		token, "token=" + token, "msg=\"Bearer " + token + "\"", "path=/a/" + token, "query=" + url.QueryEscape("access_token="+token), `{"a":"\u003c` + token + `"}`, "a\n" + token,
		"password=\"" + Password + "\"", "form=" + url.QueryEscape(Password),
	} {
		if len(leaks([]byte(line))) != 1 {
			t.Errorf("the log may hold %s", line)
		}
	}
	for _, line := range []string{
		"room=!Qccr_8Fp63PtNNsufutyZwG_MG5HtXcfwGIbJNElE-I", "room=!ccr_8Fp63PtNNsufutyZwG_MG5HtXcfwGIbJNElE-Is",
		"event=$ccr_8Fp63PtNNsufutyZwG_MG5HtXcfwGIbJNElE-Is err=x", "path=/event/%24Qccr_8Fp63PtNNsufutyZwG_MG5HtXcfwGIbJNElE-I", "operation=ccl_short",
	} {
		if len(leaks([]byte(line))) != 0 {
			t.Errorf("%s is taken for a token", line)
		}
	}
}
