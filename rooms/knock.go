package rooms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// knockTime bounds a knock at a room that only other servers are in, over all of them.
const knockTime = 2 * time.Minute

// Knock asks to be let into a room: by the door if the room is here, through another server if it is not. It is
// answered by an invitation, or denied by the user's removal.
func (r *Rooms) Knock(ctx context.Context, q JoinRequest) error {
	if len(q.Reason) > maxReason {
		return matrix.InvalidParam("A reason has at most %d bytes.", maxReason)
	}
	ref, here, err := r.whereabouts(ctx, q.Room)
	if err != nil {
		return err
	}
	if !here {
		return r.knockRemote(ctx, q, ref)
	}
	if !ref.Version.Knocking() {
		return matrix.Forbidden("Nobody can knock on a room of version %s.", ref.Version)
	}
	_, err = r.change(ctx, MemberRequest{Room: *ref, Sender: q.User, Target: q.User.ID, Profile: q.Profile, Reason: q.Reason}, "knock")
	return err
}

// knockRemote knocks through the first server that takes it. It goes on without its caller: the other server may have
// the knock already.
func (r *Rooms) knockRemote(ctx context.Context, q JoinRequest, ref *Ref) error {
	if r.source == nil {
		return matrix.NotFound("There is no room %s on this server.", q.Room)
	}
	servers, err := r.candidates(ctx, q.Room, ref, q.User, q.Via)
	if err != nil {
		return err
	}
	if len(servers) == 0 {
		return matrix.NotFound("No server is known through which one could knock on %s.", q.Room)
	}
	_, err = r.flights.Do(ctx, "knock "+string(q.Room)+" "+string(q.User.ID), func(context.Context) (struct{}, error) {
		done := make(chan error, 1)
		r.abroad.Go("knock", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, knockTime)
			defer cancel()
			done <- r.knockThroughAny(ctx, servers, q)
			return nil
		})
		return struct{}{}, <-done
	})
	return err
}

// knockThroughAny tries one server after the other. Of several failures the one that says most is told.
func (r *Rooms) knockThroughAny(ctx context.Context, servers []matrix.ServerName, q JoinRequest) error {
	var failed *matrix.Error
	for _, server := range servers {
		err := r.knockThrough(ctx, server, q)
		if err == nil {
			return nil
		}
		r.log.Info("knock through a server failed", "room", q.Room, "server", server, "err", err)
		failed = telling(failed, toClient(err, server))
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// telling is which of two failures says more to who asked: a refusal more than a server that could not be reached, and
// one that is about the user more than one that sends it elsewhere.
func telling(first, second *matrix.Error) *matrix.Error {
	weight := func(e *matrix.Error) int {
		switch {
		case e == nil:
			return 0
		case e.Status >= 500:
			return 1
		case e.Code == "M_UNABLE_TO_AUTHORISE_JOIN" || e.Code == "M_UNABLE_TO_GRANT_JOIN" || e.Code == "M_NOT_FOUND":
			return 2
		}
		return 3
	}
	if weight(second) > weight(first) {
		return second
	}
	return first
}

// knockThrough knocks through one server: the knock is made here from the few facts of a template, and what the server
// shows of the room is kept for the user.
func (r *Rooms) knockThrough(ctx context.Context, server matrix.ServerName, q JoinRequest) error {
	draft, err := r.source.MakeMembership(ctx, server, "knock", q.Room, q.User.ID)
	if err != nil {
		return err
	}
	if !draft.Version.Knocking() {
		return fmt.Errorf("rooms: %s lets knock on a room of version %s", server, draft.Version)
	}
	nid, err := r.db.AddRoom(ctx, q.Room, draft.Version)
	if err != nil {
		return errors.Join(errors.New("rooms: the room is known here in another version"), err)
	}
	more := map[string]any{}
	if q.Reason != "" {
		more["reason"] = q.Reason
	}
	knock, err := r.fromDraft(draft, q.Room, q.User.ID, memberContent("knock", q.Profile, more))
	if err != nil {
		return err
	}
	state, err := r.source.SendKnock(ctx, server, knock)
	if err != nil {
		return err
	}
	shown := glimpse{Via: server, Events: r.knockState(ctx, q.Room, draft.Version, state)}
	text, err := json.Marshal(shown)
	if err != nil {
		return fmt.Errorf("keeping what a knock shows: %w", err)
	}
	return r.PutOutside(ctx, Ref{NID: nid, ID: q.Room, Version: draft.Version}, knock, string(text))
}

// knockState turns what another server shows of a room into stripped state. What is malformed, of another room or not
// signed as it should be is left out, and so is what is too much.
func (r *Rooms) knockState(ctx context.Context, room matrix.RoomID, v matrix.RoomVersion, raws []json.RawMessage) []json.RawMessage {
	var whole []*matrix.Event
	items := []json.RawMessage{}
	size := 0
	for _, raw := range raws[:min(len(raws), maxInviteState)] {
		if size += len(raw); size > maxInviteBytes {
			break
		}
		ev, err := matrix.ParseEvent(raw, v)
		if err == nil && ev.IsState() && ev.RoomID() == room && ev.CheckContentHash() {
			whole = append(whole, ev)
			continue
		}
		if item := strippedItem(raw); err != nil && !v.RoomIDIsCreateHash() && item != nil { // as servers sent it before v1.16
			items = append(items, item)
		}
	}
	if len(whole) == 0 {
		return items
	}
	for i, err := range r.source.VerifyEvents(ctx, whole) {
		if err == nil {
			items = append(items, matrix.Stripped(whole[i]))
		}
	}
	return items
}

// glimpse is what is kept of a room that a user of ours knocks on from outside.
type glimpse struct {
	Via    matrix.ServerName // who took the knock, and may take it back
	Events []json.RawMessage
}

// readGlimpse reads what came with an invitation, a list of events, or with a knock.
func readGlimpse(text string) (g glimpse, err error) {
	if bytes.HasPrefix([]byte(text), []byte("[")) {
		err = json.Unmarshal([]byte(text), &g.Events)
	} else {
		err = json.Unmarshal([]byte(text), &g)
	}
	if err != nil {
		return g, corrupt("what a room shows to an invited or knocking user is unreadable: %w", err)
	}
	return g, nil
}

// knockedThrough is the server that took the user's knock on a room that we are not in, "" if there is none.
func (r *Rooms) knockedThrough(ctx context.Context, ref Ref, user Sender) (matrix.ServerName, error) {
	var given string
	err := r.db.Read(ctx, func(tx *store.Tx) (err error) {
		given, err = tx.Stripped(ref.NID, user.NID)
		return err
	})
	if err != nil || given == "" {
		return "", err
	}
	g, err := readGlimpse(given)
	return g.Via, err
}
