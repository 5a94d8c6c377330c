package rooms_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
	"conclave/rooms"
)

// setRules gives a user push rules of its own.
func (l *local) setRules(user rooms.Sender, change func(r *pushrules.Ruleset) error) {
	l.t.Helper()
	rules := pushrules.Defaults(string(user.ID))
	l.must(change(rules))
	content, err := rules.AccountData()
	l.must(err)
	modes := pushrules.ModesOf(rules, pushrules.Compile(rules, string(user.ID)))
	l.must(l.db.Write(l.t.Context(), func(tx *store.Tx) error { return tx.PutPushRules(user.NID, string(content), true, modes) }))
	l.must(l.rooms.RulesChanged(l.t.Context(), user.NID))
}

// TestCountsWriteRowsForPersonalMattersOnly: whoever has muted a room, or counts mentions alone there, costs a message
// nothing, however many of them there are (law 6).
func TestCountsWriteRowsForPersonalMattersOnly(t *testing.T) {
	eachLocal(t, func(l *local) {
		alice := l.user("alice")
		ref := l.create(alice)
		none := []json.RawMessage{}
		var keyword, named rooms.Sender
		for i, rule := range []func(r *pushrules.Ruleset) error{
			nil,
			func(r *pushrules.Ruleset) error {
				condition := fmt.Sprintf(`{"kind":"event_match","key":"room_id","pattern":%q}`, ref.ID)
				return r.Put(pushrules.Override, pushrules.Rule{ID: "mute", Conditions: []json.RawMessage{json.RawMessage(condition)}, Actions: none}, "", "")
			},
			func(r *pushrules.Ruleset) error {
				return r.Put(pushrules.Room, pushrules.Rule{ID: string(ref.ID), Actions: none}, "", "")
			},
			func(r *pushrules.Ruleset) error { return r.SetEnabled(pushrules.Override, ".m.rule.master", true) },
			func(r *pushrules.Ruleset) error {
				return r.Put(pushrules.Content, pushrules.Rule{ID: "k", Pattern: "cake", Actions: []json.RawMessage{[]byte(`"notify"`), []byte(`{"set_tweak":"highlight"}`)}}, "", "")
			},
		} {
			for j := range 3 {
				user := l.user(fmt.Sprintf("user%d-%d", i, j))
				l.join(ref, user)
				if rule != nil {
					l.setRules(user, rule)
				}
				if keyword = user; i == 0 {
					named = user
				}
			}
		}
		rows := func(content string) (personal []store.PersonalCount) {
			l.t.Helper()
			id, err := l.rooms.Send(l.t.Context(), rooms.SendRequest{Room: ref, Sender: alice, Type: "m.room.message", Content: json.RawMessage(content)})
			l.must(err)
			l.must(l.db.Read(l.t.Context(), func(tx *store.Tx) error {
				row, err := tx.EventInRoom(ref.NID, id)
				if err != nil {
					return err
				}
				err = tx.FillPersonal([]*store.EventRow{row})
				personal = row.Personal
				return err
			}))
			return personal
		}
		if got := rows(`{"msgtype":"m.text","body":"plain"}`); len(got) != 0 {
			l.t.Errorf("a plain message writes %v", got)
		}
		if got := rows(`{"msgtype":"m.text","body":"all","m.mentions":{"room":true}}`); len(got) != 0 {
			l.t.Errorf("a mention of everybody writes %v", got)
		}
		if got := rows(`{"msgtype":"m.text","body":"cake"}`); len(got) != 3 {
			l.t.Errorf("a keyword of three writes %v", got)
		}
		mention := fmt.Sprintf(`{"msgtype":"m.text","body":"you","m.mentions":{"user_ids":[%q,%q,"@elsewhere:two.example","@not.there:%s"]}}`, named.ID, keyword.ID, homeName)
		if got := rows(mention); len(got) != 2 {
			l.t.Errorf("a mention of two writes %v", got)
		}
	})
}
