package federation_test

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/internal/testserver/wait"
)

// TestARoomThatHoldsItsGuestsHoldsNoOthers: guests leave a room that lets them in no more although they cannot leave
// another, whose policy server signs what shuts them out and nothing of theirs.
func TestARoomThatHoldsItsGuestsHoldsNoOthers(t *testing.T) {
	proof.Of(t, "GU-02")
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		w := besiegeServer(t, testserver.Options{Engine: engine, Env: []string{"CONCLAVE_REGISTRATION_GUESTS=true"}}, 11, nil)
		w.p.Handle("POST", "/_matrix/policy/v1/sign", func(c *peer.Call) peer.Reply {
			ev, err := matrix.ParseEvent(c.Body, 11)
			if err != nil || ev.Sender().Server() != w.p.Name {
				return peer.Reply{Status: 400, Body: object{"errcode": "M_FORBIDDEN", "error": "no"}}
			}
			sig := matrix.EncodeBase64(ed25519.Sign(private, ev.SigningBytes()))
			return peer.Reply{Body: object{string(w.p.Name): object{"ed25519:policy_server": sig}}}
		})
		state := func(typ string, content object) *peer.Event {
			return w.room.Make(peer.Spec{Type: typ, StateKey: peer.Key(""), Content: content})
		}
		w.send("open", state("m.room.guest_access", object{"guest_access": "can_join"}), w.message("open"))
		w.sees("open")
		beside := w.alice.CreateRoom(object{"preset": "public_chat", "initial_state": []object{
			{"type": "m.room.guest_access", "state_key": "", "content": object{"guest_access": "can_join"}},
		}})
		guest := w.s.Nobody()
		a := guest.Must("POST", "/register?kind=guest", object{})
		guest.ID, guest.Token = a.Body["user_id"].(string), a.Body["access_token"].(string)
		for _, room := range []string{string(w.room.ID), beside} {
			guest.Must("POST", testserver.Path("rooms", room, "join"), object{})
		}

		w.send("policy", state("m.room.policy", object{"via": w.p.Name, "public_keys": object{"ed25519": matrix.EncodeBase64(public)}}), w.message("watched"))
		w.sees("watched")
		w.send("shut", state("m.room.guest_access", object{"guest_access": "forbidden"}), w.message("shut"))
		w.sees("shut")
		wait.Until(t, "the guest to be held", func() bool {
			for _, c := range w.p.Calls("/_matrix/policy/v1/sign") {
				if strings.Contains(string(c.Body), guest.ID) {
					return true
				}
			}
			return false
		})
		w.alice.Must("PUT", testserver.Path("rooms", beside, "state", "m.room.guest_access", ""), object{"guest_access": "forbidden"})
		member := testserver.Path("rooms", beside, "state", "m.room.member", guest.ID)
		wait.Until(t, "the guest to leave", func() bool { return w.alice.Must("GET", member, nil).Body["membership"] == "leave" })
	})
}
