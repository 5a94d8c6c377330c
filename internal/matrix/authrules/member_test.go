package authrules

import (
	"crypto/ed25519"
	"fmt"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/proof"
)

// becomes is a change of a membership.
func becomes(sender, target, membership string) event {
	return event{typ: "m.room.member", sender: sender, key: &target, content: fmt.Sprintf(`{"membership":%q}`, membership)}
}

func TestMemberForm(t *testing.T) {
	proof.Of(t, "AU-07", "F07")
	for _, c := range []trial{
		{name: "no state key", e: event{typ: "m.room.member", sender: eveID, content: `{"membership":"join"}`}, want: "M.1"},
		{name: "no membership", e: event{typ: "m.room.member", sender: eveID, key: at(eveID), content: `{}`}, want: "M.1"},
		{name: "membership that is no text", e: event{typ: "m.room.member", sender: eveID, key: at(eveID), content: `{"membership":1}`}, want: "M.1"},
		{name: "state key that is no user", e: becomes(bobID, "bob", "invite"), want: "M.1"},
		{name: "unknown membership", e: becomes(bobID, bobID, "away"), want: "M.U"},
		{name: "knock where there is none", where: not(matrix.RoomVersion.Knocking), e: becomes(eveID, eveID, "knock"), want: "M.U"},
	} {
		c.run(t)
	}
}

func TestJoin(t *testing.T) {
	proof.Of(t, "AU-08", "AU-09", "AU-10", "F07")
	rule := func(name string, stands ...string) func(*sketch) {
		return func(s *sketch) {
			s.joinRule(name)
			for _, m := range stands {
				s.member(eveID, m)
			}
		}
	}
	none := func(s *sketch) {}
	join := becomes(eveID, eveID, "join")
	restricted := matrix.RoomVersion.RestrictedJoins
	for _, c := range []trial{
		{name: "for somebody else", room: rule("public"), e: becomes(bobID, eveID, "join"), want: "M.J.2"},
		{name: "banned", room: rule("public", "ban"), e: join, want: "M.J.3"},
		{name: "no join rule", room: none, e: join, want: "M.J.4"},
		{name: "no join rule, invited", room: func(s *sketch) { s.member(eveID, "invite") }, e: join},
		{name: "invite", room: rule("invite"), e: join, want: "M.J.4"},
		{name: "invite, left", room: rule("invite", "leave"), e: join, want: "M.J.4"},
		{name: "invite, knocked", room: rule("invite", "knock"), e: join, want: "M.J.4"},
		{name: "invite, invited", room: rule("invite", "invite"), e: join},
		{name: "invite, joined", room: rule("invite", "join"), e: join},
		{name: "public", room: rule("public"), e: join},
		{name: "private", room: rule("private", "invite"), e: join, want: "M.J.R"},
		{name: "unknown rule", room: rule("org.example.guess", "invite"), e: join, want: "M.J.R"},
		{name: "rule that is no text", e: join, want: "M.J.R", room: func(s *sketch) {
			s.put(s.event(event{typ: "m.room.join_rules", sender: aliceID, key: at(""), content: `{"join_rule":["invite"]}`}))
			s.member(eveID, "invite")
		}},
		{name: "knock before there was knocking", where: not(matrix.RoomVersion.Knocking), room: rule("knock", "invite"), e: join, want: "M.J.R"},
		{name: "knock", where: matrix.RoomVersion.Knocking, room: rule("knock"), e: join, want: "M.J.4"},
		{name: "knock, invited", where: matrix.RoomVersion.Knocking, room: rule("knock", "invite"), e: join},
		{name: "restricted before it was", where: not(restricted), room: rule("restricted", "invite"), e: join, want: "M.J.R"},
		{name: "restricted, invited", where: restricted, room: rule("restricted", "invite"), e: join},
		{name: "restricted, joined", where: restricted, room: rule("restricted", "join"), e: join},
		{name: "restricted, nobody vouches", where: restricted, room: rule("restricted"), e: join, want: "M.J.5.2"},
		{name: "knock_restricted before it was", where: not(matrix.RoomVersion.KnockRestricted), room: rule("knock_restricted", "invite"), e: join, want: "M.J.R"},
		{name: "knock_restricted, invited", where: matrix.RoomVersion.KnockRestricted, room: rule("knock_restricted", "invite"), e: join},
		{name: "knock_restricted, nobody vouches", where: matrix.RoomVersion.KnockRestricted, room: rule("knock_restricted"), e: join, want: "M.J.5.2"},
	} {
		c.run(t)
	}
	for via, want := range map[string]string{
		`"@carol:two.example"`: "", `"@dave:two.example"`: "M.J.5.2", `"@eve:evil.example"`: "M.J.5.2", `"@nobody:one.example"`: "M.J.5.2",
		`7`: "M.J.5.2", `""`: "M.J.5.2",
	} {
		e := join
		e.content = `{"membership":"join","join_authorised_via_users_server":` + via + `}`
		trial{name: "restricted via " + via, where: restricted, room: rule("restricted"), e: e, want: want}.run(t)
		banned := trial{name: "banned via " + via, where: restricted, room: rule("restricted", "ban"), e: e, want: "M.J.3"}
		banned.run(t)
	}
}

// TestFirstJoin is the creator's join, which only its place allows.
func TestFirstJoin(t *testing.T) {
	proof.Of(t, "AU-08")
	for _, col := range columns {
		for _, v := range col.versions {
			s := newSketch(t, v, `,"additional_creators":["@bob:one.example"]`)
			create := string(s.create.ID())
			for _, c := range []struct {
				name, who string
				prev      []string
				want      string
			}{
				{"creator after the creation", aliceID, []string{create}, ""},
				{"somebody else after the creation", eveID, []string{create}, "M.J.4"},
				{"an additional creator", bobID, []string{create}, "M.J.4"},
				{"creator after something else", aliceID, []string{"$else:one.example"}, "M.J.4"},
				{"creator after two events", aliceID, []string{create, "$else:one.example"}, "M.J.4"},
				{"creator after nothing", aliceID, []string{}, "M.J.4"},
			} {
				e := becomes(c.who, c.who, "join")
				e.prev = c.prev
				want := ""
				if c.want != "" {
					want = col.rule(c.want)
				}
				if got := ruleOf(t, Check(s.event(e), s.state)); got != want {
					t.Errorf("version %s: %s: rule %q, want %q", v, c.name, got, want)
				}
			}
		}
	}
}

func TestInvite(t *testing.T) {
	proof.Of(t, "AU-11", "F07")
	stands := func(m string) func(*sketch) { return func(s *sketch) { s.member(eveID, m) } }
	for _, c := range []trial{
		{name: "with the power", e: becomes(carolID, eveID, "invite")},
		{name: "again", room: stands("invite"), e: becomes(carolID, eveID, "invite")},
		{name: "after leaving", room: stands("leave"), e: becomes(carolID, eveID, "invite")},
		{name: "after a knock", room: stands("knock"), e: becomes(carolID, eveID, "invite")},
		{name: "by somebody outside", e: becomes(eveID, eveID, "invite"), want: "M.I.2"},
		{name: "by somebody invited", room: stands("invite"), e: becomes(eveID, "@x:one.example", "invite"), want: "M.I.2"},
		{name: "of somebody joined", e: becomes(carolID, daveID, "invite"), want: "M.I.3"},
		{name: "of somebody banned", room: stands("ban"), e: becomes(carolID, eveID, "invite"), want: "M.I.3"},
		{name: "without the power", e: becomes(daveID, eveID, "invite"), want: "M.I.5"},
		{name: "by default anybody may", room: func(s *sketch) { s.levels(`{}`) }, e: becomes(daveID, eveID, "invite")},
	} {
		c.run(t)
	}
}

// TestThirdPartyInvite is the exchange of an invitation to an address.
func TestThirdPartyInvite(t *testing.T) {
	proof.Of(t, "AU-11")
	key := ed25519.NewKeyFromSeed([]byte("an identity server's signing key"))
	other := ed25519.NewKeyFromSeed([]byte("somebody else's signing key.....")[:32])
	public := matrix.EncodeBase64(key.Public().(ed25519.PublicKey))
	sign := func(k ed25519.PrivateKey, signed string) string {
		id := matrix.KeyID("ed25519:0")
		if k.Equal(other) {
			id = "ed25519:1"
		}
		text, err := matrix.SignJSON([]byte(signed), "id.example", id, k)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	good := `{"mxid":"@eve:evil.example","token":"tok"}`
	offer := func(content string) func(*sketch) {
		return func(s *sketch) {
			s.put(s.event(event{typ: "m.room.third_party_invite", sender: carolID, key: at("tok"), content: content}))
		}
	}
	usual := offer(fmt.Sprintf(`{"public_key":%q}`, public))
	invite := func(sender, third string) event {
		e := becomes(sender, eveID, "invite")
		e.content = `{"membership":"invite","third_party_invite":` + third + `}`
		return e
	}
	signed := func(text string) string { return `{"signed":` + text + `}` }
	for _, c := range []trial{
		{name: "good", room: usual, e: invite(carolID, signed(sign(key, good)))},
		{name: "key in the list", room: offer(fmt.Sprintf(`{"public_key":"AAAA","public_keys":[{"public_key":"!"},{"public_key":%q}]}`, public)),
			e: invite(carolID, signed(sign(key, good)))},
		{name: "one good signature among others", room: usual, e: invite(carolID, signed(sign(other, sign(key, good))))},
		{name: "by somebody who has left", room: func(s *sketch) { usual(s); s.member(carolID, "leave") }, e: invite(carolID, signed(sign(key, good)))},
		{name: "banned", room: func(s *sketch) { usual(s); s.member(eveID, "ban") }, e: invite(carolID, signed(sign(key, good))), want: "M.I.1.1"},
		{name: "not signed", room: usual, e: invite(carolID, `{}`), want: "M.I.1.2"},
		{name: "not an object", room: usual, e: invite(carolID, `7`), want: "M.I.1.2"},
		{name: "no mxid", room: usual, e: invite(carolID, signed(sign(key, `{"token":"tok"}`))), want: "M.I.1.3"},
		{name: "no token", room: usual, e: invite(carolID, signed(sign(key, `{"mxid":"@eve:evil.example"}`))), want: "M.I.1.3"},
		{name: "token that is no text", room: usual, e: invite(carolID, signed(sign(key, `{"mxid":"@eve:evil.example","token":[]}`))), want: "M.I.1.3"},
		{name: "for somebody else", room: usual, e: invite(carolID, signed(sign(key, `{"mxid":"@x:evil.example","token":"tok"}`))), want: "M.I.1.4"},
		{name: "unknown token", room: usual, e: invite(carolID, signed(sign(key, `{"mxid":"@eve:evil.example","token":"x"}`))), want: "M.I.1.5"},
		{name: "by somebody else", room: usual, e: invite(bobID, signed(sign(key, good))), want: "M.I.1.6"},
		{name: "signed with another key", room: usual, e: invite(carolID, signed(sign(other, good))), want: "M.I.1.8"},
		{name: "altered", room: usual, e: invite(carolID, signed(`{"mxid":"@eve:evil.example","token":"tok","x":1,"signatures":{"id.example":{"ed25519:0":"AAAA"}}}`)), want: "M.I.1.8"},
		{name: "without signatures", room: usual, e: invite(carolID, signed(good)), want: "M.I.1.8"},
		{name: "signatures that are none", room: usual, e: invite(carolID, signed(`{"mxid":"@eve:evil.example","token":"tok","signatures":7}`)), want: "M.I.1.8"},
		{name: "offer without keys", room: offer(`{}`), e: invite(carolID, signed(sign(key, good))), want: "M.I.1.8"},
		{name: "null is a third-party invite too", room: usual, e: invite(carolID, `null`), want: "M.I.1.2"},
	} {
		c.run(t)
	}
}

func TestLeave(t *testing.T) {
	proof.Of(t, "AU-12", "F07")
	stands := func(who, m string) func(*sketch) { return func(s *sketch) { s.member(who, m) } }
	for _, c := range []trial{
		{name: "joined", e: becomes(daveID, daveID, "leave")},
		{name: "invited", room: stands(eveID, "invite"), e: becomes(eveID, eveID, "leave")},
		{name: "knocked", where: matrix.RoomVersion.Knocking, room: stands(eveID, "knock"), e: becomes(eveID, eveID, "leave")},
		{name: "knocked before it was", where: not(matrix.RoomVersion.Knocking), room: stands(eveID, "knock"), e: becomes(eveID, eveID, "leave"), want: "M.L.1"},
		{name: "left already", room: stands(daveID, "leave"), e: becomes(daveID, daveID, "leave"), want: "M.L.1"},
		{name: "banned", room: stands(daveID, "ban"), e: becomes(daveID, daveID, "leave"), want: "M.L.1"},
		{name: "never here", e: becomes(eveID, eveID, "leave"), want: "M.L.1"},
		{name: "kick from outside", e: becomes(eveID, daveID, "leave"), want: "M.L.2"},
		{name: "kick", e: becomes(carolID, daveID, "leave")},
		{name: "kick of an invitation", room: stands(eveID, "invite"), e: becomes(carolID, eveID, "leave")},
		{name: "kick without the power", e: becomes(daveID, carolID, "leave"), want: "M.L.5"},
		{name: "kick of an equal", room: func(s *sketch) { s.levels(`{"users":{"@carol:two.example":50,"@dave:two.example":50}}`) }, e: becomes(carolID, daveID, "leave"), want: "M.L.5"},
		{name: "kick of somebody above", e: becomes(carolID, bobID, "leave"), want: "M.L.5"},
		{name: "unban", room: stands(daveID, "ban"), e: becomes(carolID, daveID, "leave")},
		{
			name: "unban without the power to ban", e: becomes(carolID, daveID, "leave"), want: "M.L.3",
			room: func(s *sketch) {
				s.levels(`{"users":{"@carol:two.example":50},"ban":60,"kick":10}`)
				s.member(daveID, "ban")
			},
		},
		{
			name: "unban without the power to kick", e: becomes(carolID, daveID, "leave"), want: "M.L.5",
			room: func(s *sketch) {
				s.levels(`{"users":{"@carol:two.example":50},"ban":10,"kick":60}`)
				s.member(daveID, "ban")
			},
		},
		{name: "kick of a creator", where: matrix.RoomVersion.CreatorsPrivileged, e: becomes(bobID, aliceID, "leave"), want: "M.L.5"},
		{
			name: "a creator kicks an additional one", where: matrix.RoomVersion.CreatorsPrivileged, more: `,"additional_creators":["@dave:two.example"]`,
			e: becomes(aliceID, daveID, "leave"), want: "M.L.5",
		},
		{name: "a creator kicks whoever has most", where: matrix.RoomVersion.CreatorsPrivileged, e: becomes(aliceID, bobID, "leave")},
	} {
		c.run(t)
	}
}

func TestBan(t *testing.T) {
	proof.Of(t, "AU-13", "F07")
	for _, c := range []trial{
		{name: "with the power", e: becomes(carolID, daveID, "ban")},
		{name: "of somebody outside", e: becomes(carolID, eveID, "ban")},
		{name: "from outside", e: becomes(eveID, daveID, "ban"), want: "M.B.1"},
		{name: "without the power", e: becomes(daveID, eveID, "ban"), want: "M.B.3"},
		{name: "of an equal", room: func(s *sketch) { s.levels(`{"users":{"@carol:two.example":50,"@dave:two.example":50}}`) }, e: becomes(carolID, daveID, "ban"), want: "M.B.3"},
		{name: "of oneself", e: becomes(carolID, carolID, "ban"), want: "M.B.3"},
		{name: "of a creator", where: matrix.RoomVersion.CreatorsPrivileged, e: becomes(bobID, aliceID, "ban"), want: "M.B.3"},
	} {
		c.run(t)
	}
}

func TestKnock(t *testing.T) {
	proof.Of(t, "AU-14", "F07")
	rule := func(name string, stands ...string) func(*sketch) {
		return func(s *sketch) {
			s.joinRule(name)
			for _, m := range stands {
				s.member(eveID, m)
			}
		}
	}
	knock := becomes(eveID, eveID, "knock")
	knocking := matrix.RoomVersion.Knocking
	late := both(knocking, matrix.RoomVersion.KnockRestricted)
	early := both(knocking, not(matrix.RoomVersion.KnockRestricted))
	for _, c := range []trial{
		{name: "first", where: knocking, room: rule("knock"), e: knock},
		{name: "again", where: knocking, room: rule("knock", "knock"), e: knock},
		{name: "after leaving", where: knocking, room: rule("knock", "leave"), e: knock},
		{name: "knock_restricted", where: late, room: rule("knock_restricted"), e: knock},
		{name: "knock_restricted before it was", where: early, room: rule("knock_restricted"), e: knock, want: "M.N.1"},
		{name: "invite", where: knocking, room: rule("invite"), e: knock, want: "M.N.1"},
		{name: "public", where: knocking, room: rule("public"), e: knock, want: "M.N.1"},
		{name: "for somebody else", where: knocking, room: rule("knock"), e: becomes(bobID, eveID, "knock"), want: "M.N.2"},
		{name: "banned", where: knocking, room: rule("knock", "ban"), e: knock, want: "M.N.4"},
		{name: "invited", where: knocking, room: rule("knock", "invite"), e: knock, want: "M.N.4"},
		{name: "joined", where: knocking, room: rule("knock", "join"), e: knock, want: "M.N.4"},
	} {
		c.run(t)
	}
}
