package accounts

import (
	"errors"
	"testing"
)

// TestWhoAsksFirstIsKnown asks for accounts one after the other. The first is known to be, also if somebody else has asked by the time
// that it is told: the administrators are told then, and not again soon.
func TestWhoAsksFirstIsKnown(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var refusals []error
		for _, name := range []string{"alice", "bob", "carol"} {
			_, err := w.Register(t.Context(), Registration{Username: name, Password: password, Asks: true})
			wantCode(t, err, 403, "M_FORBIDDEN")
			refusals = append(refusals, err)
		}
		for i, err := range refusals {
			var asked *Asked
			if !errors.As(err, &asked) || asked.Waiting != i+1 {
				t.Errorf("number %d is told %v, %+v", i+1, err, asked)
			}
		}
		// Who logs in before there is an answer has not asked again.
		_, err := w.login("bob", password)
		wantCode(t, err, 403, "M_FORBIDDEN")
		if asked := (*Asked)(nil); errors.As(err, &asked) {
			t.Errorf("a login counts as request number %d", asked.Waiting)
		}
	})
}
