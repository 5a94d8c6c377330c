package rooms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/matrix/statetree"
	"conclave/internal/store"
	"conclave/internal/work"
)

const (
	maxCandidates = 5 // servers through which a join is tried
	joinTime      = 30 * time.Minute
	leaveTime     = 30 * time.Second
)

// joinRemote brings a user into a room through another server. It goes on without its caller: the other server may have
// let the user in already. A caller that comes again meanwhile waits for the same join.
func (r *Rooms) joinRemote(ctx context.Context, q JoinRequest, ref *Ref) error {
	if r.source == nil {
		return matrix.NotFound("There is no room %s on this server.", q.Room)
	}
	if len(q.Reason) > maxReason {
		return matrix.InvalidParam("A reason has at most %d bytes.", maxReason)
	}
	servers, err := r.candidates(ctx, q.Room, ref, q.User, q.Via)
	if err != nil {
		return err
	}
	if len(servers) == 0 {
		return matrix.NotFound("No server is known through which %s could be joined.", q.Room)
	}
	return r.fly(ctx, &joinPlan{Request: q, Servers: servers}, nil)
}

// candidates are the servers that may know a room: those that were named, the one that invited the user or took its knock,
// those that were in the room when we left it, and the one that the room's ID names.
func (r *Rooms) candidates(ctx context.Context, room matrix.RoomID, ref *Ref, user Sender, via []matrix.ServerName) ([]matrix.ServerName, error) {
	var all []matrix.ServerName
	add := func(name matrix.ServerName) {
		if _, err := matrix.ParseServerName(string(name)); err == nil && !r.own.IsOurs(name) && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	for _, name := range via {
		add(name)
	}
	if ref != nil {
		inviter, err := r.inviter(ctx, *ref, user)
		if err != nil {
			return nil, err
		}
		add(inviter)
		through, err := r.knockedThrough(ctx, *ref, user)
		if err != nil {
			return nil, err
		}
		add(through)
		known, err := r.Servers(ctx, ref.NID)
		if err != nil {
			return nil, err
		}
		for _, name := range known {
			add(name)
		}
	}
	if name, ok := room.Server(); ok {
		add(name)
	}
	return all[:min(len(all), maxCandidates)], nil
}

// inviter is the server of who invited a user, "" if nobody did.
func (r *Rooms) inviter(ctx context.Context, ref Ref, user Sender) (matrix.ServerName, error) {
	row, err := r.Membership(ctx, ref.NID, user.NID)
	if err != nil || row == nil || row.Membership != store.Invite {
		return "", err
	}
	rows, err := r.eventsByNID(ctx, ref.NID, []store.EventNID{row.Event})
	if err != nil {
		return "", err
	}
	return rows[0].Event.Sender().Server(), nil
}

// joinThroughAny tries one server after the other. Of several failures a refusal says more than a server that could not
// be reached.
func (r *Rooms) joinThroughAny(ctx context.Context, log *joinLog) (err error) {
	defer func() {
		if v := recover(); v != nil {
			r.log.Error("panic over a join", "room", log.plan.Request.Room, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	q := log.plan.Request
	var failed *matrix.Error
	if log.plan.Whole { // answered before a crash
		err := r.joinAgain(ctx, log)
		if err == nil || ctx.Err() != nil {
			return err
		}
		r.log.Info("join that a crash interrupted failed", "room", q.Room, "server", log.plan.Server, "err", err)
		failed = toClient(err, log.plan.Server)
	}
	for _, server := range log.plan.Servers {
		err := r.joinThrough(ctx, server, log)
		if err == nil {
			return nil
		}
		r.log.Info("join through a server failed", "room", q.Room, "server", server, "err", err)
		failed = telling(failed, toClient(err, server))
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// toClient is what a client is told of a failure at another server.
func toClient(err error, server matrix.ServerName) *matrix.Error {
	type remote interface{ ForClient() *matrix.Error }
	var theirs, within remote
	var own *matrix.Error
	switch foreign := errors.As(err, &theirs); {
	case errors.As(err, &own) && (!foreign || errors.As(own.Unwrap(), &within)):
		return own
	case foreign: // what is found wrong with an answer is no error of the client's
		return theirs.ForClient()
	}
	return matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "The server %s cannot be reached or did not answer as it should.", server).With(err)
}

// join is a join under way through one server.
type join struct {
	r      *Rooms
	ref    Ref // its NID is 0 until the room's creation is verified
	server matrix.ServerName
	event  *matrix.Event
	answer *joinAnswer
}

// joinThrough joins a room through a server: the join is made here from the few facts of a template, and what the server
// answers to it is checked whole before any of it counts.
func (r *Rooms) joinThrough(ctx context.Context, server matrix.ServerName, log *joinLog) error {
	q := log.plan.Request
	draft, err := r.source.MakeMembership(ctx, server, "join", q.Room, q.User.ID)
	if err != nil {
		return err
	}
	// Our signature on the join would count as that user's consent, which nobody has asked for (threats F05, F22).
	if r.own.IsOurs(draft.AuthorisedVia.Server()) {
		return fmt.Errorf("rooms: the template of %s says that %s, a user of this server, lets the user in", server, draft.AuthorisedVia)
	}
	more := map[string]any{}
	if q.Reason != "" {
		more["reason"] = q.Reason
	}
	if draft.AuthorisedVia != "" && draft.Version.RestrictedJoins() {
		more["join_authorised_via_users_server"] = draft.AuthorisedVia
	}
	j := &join{r: r, ref: Ref{ID: q.Room, Version: draft.Version}, server: server}
	if j.event, err = r.fromDraft(draft, q.Room, q.User.ID, memberContent("join", q.Profile, more)); err != nil {
		return err
	}
	ref, here, err := r.whereabouts(ctx, q.Room)
	switch {
	case err != nil:
		return err
	case here && draft.Version != ref.Version:
		return fmt.Errorf("rooms: %s says that room %s has version %s, not %s", server, q.Room, draft.Version, ref.Version)
	case here:
		return r.joinHere(ctx, *ref, j)
	}
	if ref != nil {
		r.joining.add(ref.NID)
		defer r.endJoin(*ref)
	}
	if err := j.ask(ctx, log); err != nil {
		return err
	}
	return j.enter(ctx, q.User)
}

// whereabouts finds a room that may not be known here, and whether we are in it.
func (r *Rooms) whereabouts(ctx context.Context, id matrix.RoomID) (*Ref, bool, error) {
	ref, err := r.Lookup(ctx, id)
	var unknown *matrix.Error
	if errors.As(err, &unknown) && unknown.Code == "M_NOT_FOUND" {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	here, err := r.resident(ctx, ref.NID)
	return &ref, here, err
}

// ask hands the join in and stages what is answered. A crash before the answer is whole makes the join begin anew, one
// after it goes on with what is staged.
func (j *join) ask(ctx context.Context, log *joinLog) error {
	stage, err := log.begin(ctx, j)
	if err != nil {
		return err
	}
	j.answer = newJoinAnswer(stage)
	answer, err := j.r.source.SendJoin(ctx, j.server, j.event, func(raw json.RawMessage, auth bool) error { return j.take(ctx, raw, auth) })
	if err != nil {
		return err
	}
	if answer.MembersOmitted {
		return errors.New("rooms: the answer to a join leaves out members, which we did not ask for")
	}
	if err := j.flush(ctx); err != nil {
		return err
	}
	if err := j.authorised(ctx, answer.Event); err != nil {
		return err
	}
	return log.answered(ctx, j)
}

// joinHere joins a room that others of ours are in, where only the other server may let the user in: the join comes in
// like any other event, and of the answer nothing but its signature counts.
func (r *Rooms) joinHere(ctx context.Context, ref Ref, j *join) error {
	answer, err := r.source.SendJoin(ctx, j.server, j.event, func(json.RawMessage, bool) error { return nil })
	if err != nil {
		return err
	}
	if err := j.authorised(ctx, answer.Event); err != nil {
		return err
	}
	return r.Receive(ctx, j.server, Admitted{ID: j.event.ID(), Ref: ref, Event: j.event})
}

func (r *Rooms) endJoin(ref Ref) {
	r.joining.remove(ref.NID)
	r.wake(ref)
}

// fromDraft builds a membership event of a user of ours at the place in the room that another server named.
func (r *Rooms) fromDraft(d *Draft, room matrix.RoomID, user matrix.UserID, content map[string]any) (*matrix.Event, error) {
	raw, err := matrix.Encode(content)
	if err != nil {
		return nil, err
	}
	key := string(user)
	t := matrix.Template{
		RoomID: room, Sender: user, Type: "m.room.member", StateKey: &key, Content: raw, PrevEvents: d.PrevEvents,
		AuthEvents: d.AuthEvents, Depth: d.Depth, OriginServerTS: r.now().UnixMilli(),
	}
	return t.Build(d.Version, r.own.Name, r.own.KeyID, r.own.Key)
}

// authorised takes the join as the other server signed it, which is needed where a user of that server lets ours in
// (threats F22).
func (j *join) authorised(ctx context.Context, raw json.RawMessage) error {
	if _, ok := matrix.GetString(j.event.Content(), "join_authorised_via_users_server"); !ok {
		return nil
	}
	a := Admitted{Ref: j.ref}
	if a.parse(raw); a.Err != nil {
		return a.Err
	}
	if a.ID != j.event.ID() || string(a.Event.Content()) != string(j.event.Content()) {
		return errors.New("rooms: the other server signed another join than ours")
	}
	list := []Admitted{a}
	if j.r.verify(ctx, list); list[0].Err != nil {
		return list[0].Err
	}
	j.event = list[0].Event
	return nil
}

// enter checks the answer as a whole, stores it, and makes the room visible in one last short step.
func (j *join) enter(ctx context.Context, user Sender) error {
	r := j.r
	create, err := j.creation(ctx)
	if err != nil {
		return err
	}
	nid, err := r.db.AddVerifiedRoom(ctx, j.ref.ID, j.ref.Version)
	if err != nil {
		return err
	}
	j.ref.NID = nid
	r.joining.add(nid)
	defer r.endJoin(j.ref)
	unlock, err := r.entering.lock(ctx, nid)
	if err != nil {
		return err
	}
	defer unlock()
	if here, err := r.resident(ctx, nid); err != nil || here { // another user of ours was faster
		if err != nil {
			return err
		}
		return r.Receive(ctx, j.server, Admitted{ID: j.event.ID(), Ref: j.ref, Event: j.event})
	}
	if known, err := r.createOf(ctx, j.ref); err != nil || known != "" && known != create {
		return errors.Join(errors.New("rooms: the room was made by another event than this server knows"), err)
	}
	state, err := j.sift(ctx, create)
	if err != nil {
		return err
	}
	if err := j.allowed(ctx, state); err != nil {
		return err
	}
	work.Failpoint("join-judged")
	shown, err := j.show(ctx, state)
	if err != nil {
		return err
	}
	work.Failpoint("join-shown")
	return j.appear(ctx, user, state, shown)
}

// appear takes the join through the door as the beginning of the room's present. What lies before it is history that
// can be asked for.
func (j *join) appear(ctx context.Context, user Sender, state store.State, shown statetree.Name) error {
	r := j.r
	a := &arrival{event: j.event}
	if err := r.look(ctx, j.ref, a); err != nil {
		return err
	}
	in := &incoming{event: j.event, before: state, anew: true, shown: shown, missing: a.lacks().parents}
	err := r.enter(ctx, j.ref, &entry{incoming: in, sender: user.NID})
	if err != nil && !errors.Is(err, errHeld) {
		return err
	}
	r.cache.refs.Set(j.ref.ID, j.ref)
	return r.db.Write(ctx, func(tx *store.Tx) error { return tx.ClearStrippedOf(j.ref.NID) })
}

// leaveRemote leaves a room that only other servers are in: an invitation declined, a knock withdrawn. If none of those
// servers can be reached the user is out of the room all the same, as far as this server is concerned.
func (r *Rooms) leaveRemote(ctx context.Context, q MemberRequest) error {
	content, err := q.content("leave")
	if err != nil {
		return err
	}
	servers, err := r.candidates(ctx, q.Room.ID, &q.Room, q.Sender, nil)
	if err != nil {
		return err
	}
	var members map[string]any
	if err := matrix.Decode(content, &members); err != nil {
		return err
	}
	leave := r.tellLeave(ctx, servers, q, members)
	if leave == nil {
		if leave, err = r.fromDraft(&Draft{Version: q.Room.Version}, q.Room.ID, q.Sender.ID, members); err != nil {
			return err
		}
	}
	return r.PutOutside(ctx, q.Room, leave, "")
}

// tellLeave hands a leave to the first server that takes it; nil if none does.
func (r *Rooms) tellLeave(ctx context.Context, servers []matrix.ServerName, q MemberRequest, content map[string]any) *matrix.Event {
	if r.source == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	for _, server := range servers[:min(len(servers), maxServers)] {
		draft, err := r.source.MakeMembership(ctx, server, "leave", q.Room.ID, q.Sender.ID)
		if err == nil && draft.Version != q.Room.Version {
			err = errors.New("rooms: a template for a room of another version")
		}
		var leave *matrix.Event
		if err == nil {
			leave, err = r.fromDraft(draft, q.Room.ID, q.Sender.ID, content)
		}
		if err == nil {
			err = r.source.SendLeave(ctx, server, leave)
		}
		if err == nil {
			return leave
		}
		r.log.Info("leave through a server failed", "room", q.Room.ID, "server", server, "err", err)
	}
	return nil
}

// PutOutside notes the membership of a user of ours in a room that we are not in, by the event that made it so: an
// invitation that came, or its end. stripped is what came with it, a JSON array, or "".
func (r *Rooms) PutOutside(ctx context.Context, ref Ref, ev *matrix.Event, stripped string) error {
	key, _ := ev.StateKey()
	ids := []matrix.UserID{ev.Sender(), matrix.UserID(key)}
	users, err := r.Users(ctx, ids)
	if err != nil {
		return err
	}
	nid, err := r.db.NextNID(store.KindEvent)
	if err != nil {
		return err
	}
	row := &store.EventRow{
		NID: store.EventNID(nid), Room: ref.NID, Sender: users[ev.Sender()].NID, Event: ev, Flags: store.FlagState | store.FlagOutlier,
	}
	var pos store.Pos
	err = r.db.Write(ctx, func(tx *store.Tx) error {
		if err := tx.Evidence([]*store.EventRow{row}, nil); err != nil {
			return err
		}
		held, err := tx.EventInRoom(ref.NID, ev.ID())
		if err != nil {
			return err
		}
		if held == nil {
			return corrupt("event %s of room %d is one of another room", ev.ID(), ref.NID)
		}
		pos, err = tx.PutMember(ref.NID, users[matrix.UserID(key)], store.MembershipOf(ev.Membership()), held.NID, stripped)
		return err
	})
	if err == nil {
		r.bus.Publish(cluster.Stream, int64(pos))
	}
	return err
}
