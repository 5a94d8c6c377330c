package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
	"conclave/rooms"
)

// houseWorld is a server with rooms and users, and a peer that asks it.
type houseWorld struct {
	*keyWorld
	rooms  *rooms.Rooms
	rows   *Rows
	us     peer.Target
	p      *peer.Peer
	users  map[string]rooms.Sender
	serial int

	mu      sync.Mutex
	typists []string
}

// typed are the users of other servers of whom it was said that they type.
func (w *houseWorld) typed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.typists)
}

// verifier is as much of an EventSource as a resident server needs.
type verifier struct {
	rooms.EventSource
	ring *Keyring
}

func (v verifier) VerifyEvents(ctx context.Context, events []*matrix.Event) []error {
	return v.ring.VerifyEvents(ctx, events)
}

func newHouse(t *testing.T, db *store.DB, notaries ...*peer.Peer) *houseWorld {
	t.Helper()
	w := &houseWorld{keyWorld: newKeyWorld(t, db, notaries...), users: map[string]rooms.Sender{}}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	bus := cluster.NewLocal()
	key := w.c.own.Key()
	var err error
	w.rooms, err = rooms.New(ctx, rooms.Options{
		DB: db, Bus: bus, Clock: w.clk.now, Source: NewSource(w.c, w.ring),
		Identity: rooms.Identity{Name: ourName, KeyID: key.ID, Key: key.Private},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.rooms.Close(context.Background()) })
	people := accounts.New(accounts.Options{DB: db, Server: ourName, Config: &config.Config{}, Bus: bus})
	_, w.us = w.startServer(func(o *ServerOptions) {
		o.DB, o.Rooms, o.Accounts, o.Bus = db, w.rooms, people, bus
		o.Typing = func(_ store.RoomNID, user matrix.UserID, _ time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.typists = append(w.typists, string(user))
		}
	})
	w.rows = NewRows(RowsOptions{DB: db, Identity: w.c.own})
	w.p = peer.New(t, w.ca, peer.Options{})
	return w
}

// user makes an account.
func (w *houseWorld) user(name string) rooms.Sender {
	w.t.Helper()
	if u, ok := w.users[name]; ok {
		return u
	}
	id := matrix.UserID("@" + name + ":" + ourName)
	u, err := w.db.User(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	err = w.db.Write(w.t.Context(), func(tx *store.Tx) error {
		_, err := tx.CreateAccount(store.Account{User: u.NID, ID: id})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.users[name] = rooms.Sender{NID: u.NID, ID: id}
	return w.users[name]
}

// room makes a room of alice's.
func (w *houseWorld) room(v matrix.RoomVersion, preset string, state ...rooms.StateEvent) rooms.Ref {
	w.t.Helper()
	id, err := w.rooms.Create(w.t.Context(), rooms.CreateRequest{Creator: w.user("alice"), Version: v, Preset: preset, InitialState: state})
	if err != nil {
		w.t.Fatal(err)
	}
	ref, err := w.rooms.Lookup(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return ref
}

func (w *houseWorld) say(ref rooms.Ref, user, text string) matrix.EventID {
	w.t.Helper()
	id, err := w.rooms.Send(w.t.Context(), rooms.SendRequest{
		Room: ref, Sender: w.user(user), Type: "m.room.message", Content: fmt.Appendf(nil, `{"msgtype":"m.text","body":%q}`, text),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// setState sends a state event of alice's.
func (w *houseWorld) setState(ref rooms.Ref, typ, key, content string) matrix.EventID {
	w.t.Helper()
	id, err := w.rooms.Send(w.t.Context(), rooms.SendRequest{Room: ref, Sender: w.user("alice"), Type: typ, StateKey: &key, Content: []byte(content)})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func seg(s ...string) string {
	var b strings.Builder
	for _, part := range s {
		b.WriteString("/" + url.PathEscape(part))
	}
	return b.String()
}

// proposal asks for a template and returns the event's members.
func (w *houseWorld) proposal(p *peer.Peer, verb string, ref rooms.Ref, user matrix.UserID) (map[string]any, peer.Answer) {
	w.t.Helper()
	query := ""
	if verb != "make_leave" {
		query = "?ver=" + ref.Version.String()
	}
	a := p.Do(w.t, w.us, "GET", v1+"/"+verb+seg(string(ref.ID), string(user))+query, nil)
	var body struct {
		Version string         `json:"room_version"`
		Event   map[string]any `json:"event"`
	}
	if a.Status == 200 {
		if err := json.Unmarshal(a.Body, &body); err != nil || body.Version != ref.Version.String() {
			w.t.Fatalf("%s answered %s", verb, a.Body)
		}
		delete(body.Event, "origin")
		for _, name := range []string{"depth", "origin_server_ts"} {
			n, _ := body.Event[name].(float64)
			body.Event[name] = int64(n)
		}
		w.serial++
		if ref.Version.EventIDsInEvent() {
			body.Event["event_id"] = fmt.Sprintf("$%s%d:%s", verb, w.serial, p.Name)
		}
	}
	return body.Event, a
}

func (w *houseWorld) hand(p *peer.Peer, path string, ref rooms.Ref, e *peer.Event) peer.Answer {
	w.t.Helper()
	return p.Do(w.t, w.us, "PUT", path+seg(string(ref.ID), string(e.ID)), e.JSON)
}

// joins brings a user of a peer into a room.
func (w *houseWorld) joins(p *peer.Peer, ref rooms.Ref, user matrix.UserID) (*peer.Event, peer.Answer) {
	w.t.Helper()
	members, a := w.proposal(p, "make_join", ref, user)
	if a.Status != 200 {
		w.t.Fatalf("make_join: %d %s", a.Status, a.Body)
	}
	e := p.Seal(ref.Version, members)
	a = w.hand(p, v2+"/send_join", ref, e)
	if a.Status != 200 {
		w.t.Fatalf("send_join: %d %s", a.Status, a.Body)
	}
	return e, a
}

func (w *houseWorld) leaves(p *peer.Peer, ref rooms.Ref, user matrix.UserID) *peer.Event {
	w.t.Helper()
	members, a := w.proposal(p, "make_leave", ref, user)
	if a.Status != 200 {
		w.t.Fatalf("make_leave: %d %s", a.Status, a.Body)
	}
	e := p.Seal(ref.Version, members)
	if a = w.hand(p, v2+"/send_leave", ref, e); a.Status != 200 {
		w.t.Fatalf("send_leave: %d %s", a.Status, a.Body)
	}
	return e
}

// stands is what a user is in a room.
func (w *houseWorld) stands(ref rooms.Ref, user matrix.UserID) string {
	w.t.Helper()
	u, err := w.db.User(w.t.Context(), user)
	if err != nil {
		w.t.Fatal(err)
	}
	row, err := w.rooms.Membership(w.t.Context(), ref.NID, u.NID)
	if err != nil {
		w.t.Fatal(err)
	}
	if row == nil {
		return ""
	}
	return row.Membership.String()
}

// outgoing are the IDs of all events for a server after a position.
func (w *houseWorld) outgoing(server matrix.ServerName, after store.Pos) []matrix.EventID {
	w.t.Helper()
	pdus, _, err := w.rows.PDUs(w.t.Context(), server, PDUQuery{After: after, Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	ids := make([]matrix.EventID, 0, len(pdus))
	for _, p := range pdus {
		ids = append(ids, p.ID)
	}
	return ids
}

func TestServersJoinThroughUs(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		for _, v := range matrix.RoomVersions() {
			t.Run("version "+v.String(), func(t *testing.T) {
				ref := w.room(v, "public_chat")
				bob := w.p.User("bob" + v.String())
				e, a := w.joins(w.p, ref, bob)
				var welcome struct {
					Event   json.RawMessage   `json:"event"`
					State   []json.RawMessage `json:"state"`
					Chain   []json.RawMessage `json:"auth_chain"`
					Omitted bool              `json:"members_omitted"`
					Servers []string          `json:"servers_in_room"`
				}
				if err := matrix.Decode(a.Body, &welcome); err != nil {
					t.Fatal(err)
				}
				types := map[string]bool{}
				for _, raw := range append(welcome.State, welcome.Chain...) {
					ev, err := matrix.ParseEvent(raw, v)
					if err != nil {
						t.Fatalf("an event of the answer: %v", err)
					}
					types[ev.Type()] = true
				}
				if len(welcome.State) < 6 || len(welcome.Chain) < 4 || !types["m.room.create"] || welcome.Omitted || welcome.Event == nil {
					t.Errorf("the answer is %s", a.Body)
				}
				if w.stands(ref, bob) != "join" {
					t.Errorf("bob is %q", w.stands(ref, bob))
				}
				if again := w.hand(w.p, v2+"/send_join", ref, e); again.Status != 200 || string(again.Body) != string(a.Body) {
					t.Errorf("repeated, the join is answered %d %s", again.Status, again.Body)
				}
				w.leaves(w.p, ref, bob)
				if w.stands(ref, bob) != "leave" {
					t.Errorf("bob is %q", w.stands(ref, bob))
				}
			})
		}
	})
}

// TestForgedMembershipIsRefused is threats F04 and F21: every field that path, origin and event must agree about, wrong.
func TestForgedMembershipIsRefused(t *testing.T) {
	proof.Of(t, "F04", "F21", "MB-02")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		public, door, other := w.room(11, "public_chat"), w.room(11, "private_chat"), w.room(11, "public_chat")
		w.setState(door, "m.room.join_rules", "", `{"join_rule":"knock"}`)
		q := peer.New(t, w.ca, peer.Options{})
		bob := w.p.User("bob")
		w.joins(w.p, public, bob)
		set := func(name string, value any) peer.Knob { return peer.Set(name, value) }
		content := func(membership string) peer.Knob { return set("content", map[string]any{"membership": membership}) }
		for _, op := range []struct{ verb, path, membership string }{
			{"make_join", v2 + "/send_join", "join"}, {"make_leave", v2 + "/send_leave", "leave"}, {"make_knock", v1 + "/send_knock", "knock"},
		} {
			user, ref := w.p.User("carol"), public
			switch op.membership {
			case "leave":
				user = bob
			case "knock":
				ref = door
			}
			for name, knobs := range map[string][]peer.Knob{
				"another type":         {set("type", "m.room.power_levels")},
				"no state":             {set("state_key", nil)},
				"about somebody else":  {set("state_key", string(w.p.User("else")))},
				"about one of ours":    {set("state_key", "@alice:"+ourName)},
				"another server's":     {set("sender", string(q.User("x"))), set("state_key", string(q.User("x")))},
				"one of ours":          {set("sender", "@alice:"+ourName), set("state_key", "@alice:"+ourName)},
				"a ban":                {content("ban")},
				"an invitation":        {content("invite")},
				"another room":         {set("room_id", string(other.ID))},
				"no room":              {set("room_id", nil)},
				"no signature":         {peer.NoSignature()},
				"a wrong signature":    {w.p.BadSignature()},
				"signed by another":    {peer.SignedWith(q.Name, q.KeyID, q.Key)},
				"a wrong hash":         {peer.BadHash()},
				"changed afterwards":   {peer.SetLate("origin_server_ts", 1)},
				"a name twice":         {peer.DuplicateMember(`"type":"m.room.member"`)},
				"unknown parents":      {set("prev_events", []any{"$unknown"})},
				"no parents":           {set("prev_events", []any{})},
				"unknown auth events":  {set("auth_events", []any{"$unknown"})},
				"no auth events":       {set("auth_events", []any{})},
				"a depth out of range": {set("depth", json.Number("9007199254740992"))},
			} {
				members, a := w.proposal(w.p, op.verb, ref, user)
				if a.Status != 200 {
					t.Fatalf("%s: %d %s", op.verb, a.Status, a.Body)
				}
				e := w.p.Seal(ref.Version, members, knobs...)
				if got := w.hand(w.p, op.path, ref, e); got.Status != 400 && got.Status != 403 {
					t.Errorf("%s, %s: %d %s", op.verb, name, got.Status, got.Body)
				}
			}
			members, _ := w.proposal(w.p, op.verb, ref, user)
			e := w.p.Seal(ref.Version, members)
			for name, do := range map[string]func() peer.Answer{
				"the path of another event": func() peer.Answer {
					return w.p.Do(t, w.us, "PUT", op.path+seg(string(ref.ID), "$other"), e.JSON)
				},
				"the path of another room": func() peer.Answer { return w.hand(w.p, op.path, other, e) },
				"by another server":        func() peer.Answer { return w.hand(q, op.path, ref, e) },
			} {
				if got := do(); got.Status != 400 && got.Status != 403 {
					t.Errorf("%s, %s: %d %s", op.verb, name, got.Status, got.Body)
				}
			}
			if got := w.hand(w.p, op.path, ref, e); got.Status != 200 {
				t.Errorf("%s as it should be: %d %s", op.verb, got.Status, got.Body)
			}
		}
		for _, here := range []struct {
			ref  rooms.Ref
			user matrix.UserID
			want string
		}{
			{public, bob, "leave"}, {public, w.p.User("carol"), "join"}, {door, w.p.User("carol"), "knock"}, {public, "@alice:" + ourName, "join"},
			{door, "@alice:" + ourName, "join"}, {other, bob, ""}, {public, w.p.User("else"), ""}, {door, w.p.User("else"), ""}, {public, q.User("x"), ""},
		} {
			if got := w.stands(here.ref, here.user); got != here.want {
				t.Errorf("%s is %q, want %q: a forged event has had an effect", here.user, got, here.want)
			}
		}
		_, err := w.rooms.Kick(t.Context(), rooms.MemberRequest{Room: public, Sender: w.user("alice"), Target: w.p.User("else")})
		var refused *matrix.Error
		if !errors.As(err, &refused) || refused.Status != 403 {
			t.Errorf("the removal of who is not in the room: %v", err)
		}
		w.joins(w.p, public, w.p.User("dave")) // the next honest one comes in
	})
}

func TestProposals(t *testing.T) {
	proof.Of(t, "FD-22")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		public, private := w.room(10, "public_chat"), w.room(10, "private_chat")
		bob := w.p.User("bob")
		q := peer.New(t, w.ca, peer.Options{})
		for name, c := range map[string]struct {
			verb   string
			room   matrix.RoomID
			user   matrix.UserID
			query  string
			status int
			code   string
		}{
			"as it should be":         {"make_join", public.ID, bob, "?ver=9&ver=10", 200, ""},
			"without its version":     {"make_join", public.ID, bob, "?ver=1", 400, "M_INCOMPATIBLE_ROOM_VERSION"},
			"without any version":     {"make_join", public.ID, bob, "", 400, "M_INCOMPATIBLE_ROOM_VERSION"},
			"for another's user":      {"make_join", public.ID, q.User("x"), "?ver=10", 403, "M_FORBIDDEN"},
			"for one of ours":         {"make_join", public.ID, "@alice:" + ourName, "?ver=10", 403, "M_FORBIDDEN"},
			"uninvited":               {"make_join", private.ID, bob, "?ver=10", 403, "M_FORBIDDEN"},
			"an unknown room":         {"make_join", "!none:us.test", bob, "?ver=10", 404, "M_NOT_FOUND"},
			"no room":                 {"make_join", "none", bob, "?ver=10", 400, "M_INVALID_PARAM"},
			"leaving where it is not": {"make_leave", public.ID, bob, "", 403, "M_FORBIDDEN"},
			"knocking on an open one": {"make_knock", public.ID, bob, "?ver=10", 403, "M_FORBIDDEN"},
		} {
			got := w.p.Do(t, w.us, "GET", v1+"/"+c.verb+seg(string(c.room), string(c.user))+c.query, nil)
			if got.Status != c.status || got.Code() != c.code {
				t.Errorf("%s: %d %s", name, got.Status, got.Body)
			}
			if version, _ := matrix.GetString(got.Body, "room_version"); c.code == "M_INCOMPATIBLE_ROOM_VERSION" && version != "10" {
				t.Errorf("%s: the answer names version %q", name, version)
			}
		}
		w.setState(public, "m.room.server_acl", "", `{"allow":["*"],"deny":["localhost"]}`)
		got := w.p.Do(t, w.us, "GET", v1+"/make_join"+seg(string(public.ID), string(bob))+"?ver=10", nil)
		if got.Status != 403 {
			t.Errorf("shut out: %d %s", got.Status, got.Body)
		}
	})
}

func TestKnocksAreTaken(t *testing.T) {
	proof.Of(t, "MB-06", "RM-08")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		ref := w.room(11, "private_chat")
		w.setState(ref, "m.room.join_rules", "", `{"join_rule":"knock"}`)
		bob := w.p.User("bob")
		members, a := w.proposal(w.p, "make_knock", ref, bob)
		if a.Status != 200 {
			t.Fatalf("make_knock: %d %s", a.Status, a.Body)
		}
		a = w.hand(w.p, v1+"/send_knock", ref, w.p.Seal(ref.Version, members))
		var answer struct {
			State []json.RawMessage `json:"knock_room_state"`
		}
		if err := matrix.Decode(a.Body, &answer); err != nil || a.Status != 200 || len(answer.State) < 2 {
			t.Fatalf("send_knock: %d %s", a.Status, a.Body)
		}
		if _, err := matrix.ParseEvent(answer.State[0], 11); err != nil {
			t.Errorf("knock_room_state holds no whole events: %v", err)
		}
		if w.stands(ref, bob) != "knock" {
			t.Errorf("bob is %q", w.stands(ref, bob))
		}
	})
}

// TestRestrictedJoins is threats F22: we sign for those who may come in, and for nobody else.
func TestRestrictedJoins(t *testing.T) {
	proof.Of(t, "F22", "MB-03", "SG-09")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newHouse(t, db)
		club := w.room(11, "public_chat")
		rule := func(rooms ...matrix.RoomID) string {
			var allow []map[string]any
			for _, id := range rooms {
				allow = append(allow, map[string]any{"type": "m.room_membership", "room_id": id})
			}
			content, _ := json.Marshal(map[string]any{"join_rule": "restricted", "allow": allow})
			return string(content)
		}
		ref := w.room(11, "private_chat")
		w.setState(ref, "m.room.join_rules", "", rule(club.ID))
		bob, carol := w.p.User("bob"), w.p.User("carol")
		w.joins(w.p, club, bob)

		if _, a := w.proposal(w.p, "make_join", ref, carol); a.Status != 403 || a.Code() != "M_FORBIDDEN" {
			t.Errorf("who is not in the club: %d %s", a.Status, a.Body)
		}
		members, a := w.proposal(w.p, "make_join", ref, bob)
		if a.Status != 200 {
			t.Fatalf("make_join: %d %s", a.Status, a.Body)
		}
		// The same place, for somebody who meets no condition.
		forged := w.p.Seal(ref.Version, map[string]any{
			"type": "m.room.member", "sender": string(carol), "state_key": string(carol), "room_id": string(ref.ID),
			"content": members["content"], "prev_events": members["prev_events"], "auth_events": members["auth_events"],
			"depth": members["depth"], "origin_server_ts": members["origin_server_ts"],
		})
		if a := w.hand(w.p, v2+"/send_join", ref, forged); a.Status != 403 || strings.Contains(string(a.Body), "signatures") {
			t.Errorf("a join by a false leave: %d %s", a.Status, a.Body)
		}
		w.letsNobodyIn(ref, club, bob)
		e := w.p.Seal(ref.Version, members)
		a = w.hand(w.p, v2+"/send_join", ref, e)
		var answer struct {
			Event json.RawMessage `json:"event"`
		}
		if err := matrix.Decode(a.Body, &answer); err != nil || a.Status != 200 {
			t.Fatalf("send_join: %d %s", a.Status, a.Body)
		}
		signed, err := matrix.ParseEvent(answer.Event, ref.Version)
		if err != nil || len(signed.SignatureKeys(ourName)) != 1 || w.stands(ref, bob) != "join" {
			t.Errorf("the join came back as %s, bob is %q", answer.Event, w.stands(ref, bob))
		}

		w.setState(ref, "m.room.join_rules", "", rule("!elsewhere:other.test"))
		if _, a := w.proposal(w.p, "make_join", ref, carol); a.Status != 400 || a.Code() != "M_UNABLE_TO_AUTHORISE_JOIN" {
			t.Errorf("a condition that we cannot judge: %d %s", a.Status, a.Body)
		}
		w.joins(w.p, club, carol)
		w.setState(ref, "m.room.join_rules", "", rule(club.ID))
		w.setState(ref, "m.room.power_levels", "", `{"users":{"@alice:us.test":50},"invite":100}`)
		if _, a := w.proposal(w.p, "make_join", ref, carol); a.Status != 400 || a.Code() != "M_UNABLE_TO_GRANT_JOIN" {
			t.Errorf("where nobody of ours may invite: %d %s", a.Status, a.Body)
		}
	})
}

// letsNobodyIn hands in joins of a proposal that name others as who lets the user in, or nobody: none of them has done so.
func (w *houseWorld) letsNobodyIn(ref, club rooms.Ref, user matrix.UserID) {
	w.t.Helper()
	q := peer.New(w.t, w.ca, peer.Options{})
	host, weak := q.User("host"), w.user("weak")
	w.joins(q, club, host)
	w.joins(q, ref, host) // may invite, and will sign nothing
	for _, room := range []rooms.Ref{club, ref} {
		if err := w.rooms.Join(w.t.Context(), rooms.JoinRequest{Room: room.ID, User: weak}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.setState(ref, "m.room.power_levels", "", fmt.Sprintf(`{"users":{"@alice:us.test":100,%q:60},"invite":50}`, host))
	members, a := w.proposal(w.p, "make_join", ref, user)
	if a.Status != 200 {
		w.t.Fatalf("make_join: %d %s", a.Status, a.Body)
	}
	for name, via := range map[string]any{
		"nobody":                           nil,
		"one of ours who is not there":     "@bob:" + ourName,
		"one of ours without the power":    string(weak.ID),
		"another server's, without a sign": string(host),
		"the joiner":                       string(user),
		"no user":                          "alice",
		"a list":                           []any{"@alice:" + ourName},
	} {
		content := map[string]any{"membership": "join"}
		if via != nil {
			content["join_authorised_via_users_server"] = via
		}
		forged := maps.Clone(members)
		a := w.hand(w.p, v2+"/send_join", ref, w.p.Seal(ref.Version, forged, peer.Set("content", content)))
		if a.Status != 400 && a.Status != 403 || strings.Contains(string(a.Body), "ed25519:ours") || w.stands(ref, user) == "join" {
			w.t.Errorf("a join that %s lets in: %d %s", name, a.Status, a.Body)
		}
	}
}
