package accounts

import (
	"slices"
	"testing"

	"conclave/internal/testserver/proof"
)

// TestAPageMailsWhenItIsDue: a page that asks for a stage's mail gets one when the stage's turn has come, and none once it is
// passed.
func TestAPageMailsWhenItIsDue(t *testing.T) {
	proof.Of(t, "AN-05", "A03")
	eachMail(t, func(t *testing.T, w *mailWorld) {
		ask := Confirm{Operation: OperationRegister, Flows: Flows([]string{StageDummy, StageEmail})}
		c := challenged(t, confirm(t, w.world, ask))
		request := AddressRequest{Address: "new@a.test", From: "192.0.2.1", Block: "192.0.2.1"}
		_, err := w.MailStage(t.Context(), c.Session, request)
		wantCode(t, err, 403, "M_FORBIDDEN")
		if mails := w.deliver(); len(mails) != 0 {
			t.Errorf("before its turn: %d mails", len(mails))
		}
		_, err = w.PassStage(t.Context(), &AuthData{Type: StageDummy, Session: c.Session, Answer: []byte(`{}`)}, "")
		must(t, err)
		f, err := w.MailStage(t.Context(), c.Session, request)
		if err != nil || !f.Mailed {
			t.Fatalf("in its turn: %+v %v", f, err)
		}
		_, err = w.ConfirmAddress(t.Context(), token(t, w.one()))
		must(t, err)
		answer := &AuthData{Type: StageEmail, Session: c.Session, Answer: []byte(`{}`)}
		_, err = w.PassStage(t.Context(), answer, "")
		must(t, err)
		if _, err := w.MailStage(t.Context(), c.Session, request); err != nil || len(w.deliver()) != 0 {
			t.Errorf("once it is passed: %v, or one more mail", err)
		}
		row, err := w.uiaSession(t.Context(), c.Session)
		must(t, err)
		if !slices.Equal(row.Completed, []string{StageDummy, StageEmail}) {
			t.Errorf("passed are %v", row.Completed)
		}
	})
}
