package rooms

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// UpgradeRequest asks for a room's replacement by one of another version (client-server API, "Room upgrades").
type UpgradeRequest struct {
	Room     Ref
	User     Sender
	Profile  Profile // the user's, for its own member event
	Version  matrix.RoomVersion
	Creators []matrix.UserID // besides the user, where the new version has such
}

// transferable is the state that a replacement takes over as it is. Power levels and join rules are adapted to the new
// version; memberships and what depends on its sender stay.
var transferable = []authrules.StateKey{
	{Type: "m.room.server_acl"}, {Type: "m.room.encryption"}, {Type: "m.room.name"}, {Type: "m.room.avatar"}, {Type: "m.room.topic"},
	{Type: "m.room.guest_access"}, {Type: "m.room.history_visibility"}, {Type: "m.room.join_rules"},
}

// upgrade is a room on its way to its replacement.
type upgrade struct {
	r      *Rooms
	q      UpgradeRequest
	state  map[authrules.StateKey]*store.EventRow
	levels authrules.Levels
}

// Upgrade replaces a room and returns the ID of the new one. Rights are checked before anything is made. The replacement
// comes into being whole, with its first events; the tombstone leads to it before aliases do: wherever a crash cuts this
// off, the old room is either as it was or leads to the new one, and asking again is safe.
func (r *Rooms) Upgrade(ctx context.Context, q UpgradeRequest) (matrix.RoomID, error) {
	if err := r.requirePower(ctx, q.Room.NID, q.User, "m.room.tombstone"); err != nil {
		return "", err
	}
	old, err := r.CurrentState(ctx, q.Room.NID)
	if err != nil {
		return "", err
	}
	u := &upgrade{r: r, q: q}
	if u.state, err = r.StateEvents(ctx, q.Room.NID, old, append([]authrules.StateKey{{Type: "m.room.create"}, {Type: "m.room.canonical_alias"}}, transferable...)); err != nil {
		return "", err
	}
	if u.levels, err = r.levelsAt(ctx, q.Room, old); err != nil {
		return "", err
	}
	req, err := u.replacement(ctx)
	if err != nil {
		return "", err
	}
	id, err := r.Create(ctx, *req)
	if err != nil {
		return "", err
	}
	ref, err := r.Lookup(ctx, id)
	if err != nil {
		return "", err
	}
	if _, err := u.set(ctx, q.Room, "m.room.tombstone", map[string]any{"body": "This room has been replaced.", "replacement_room": id}); err != nil {
		return "", err
	}
	err = r.db.Write(ctx, func(tx *store.Tx) error { return tx.Replace(q.Room.NID, ref.NID) })
	if err != nil {
		return "", err
	}
	r.directory.forget()
	u.rename(ctx, ref)
	u.restrict(ctx)
	return id, nil
}

// set sends state in the name of the user.
func (u *upgrade) set(ctx context.Context, ref Ref, typ string, content any) (matrix.EventID, error) {
	raw, err := matrix.Encode(content)
	if err != nil {
		return "", err
	}
	key := ""
	return u.r.Send(ctx, SendRequest{Room: ref, Sender: u.q.User, Type: typ, StateKey: &key, Content: raw})
}

// replacement describes the new room.
func (u *upgrade) replacement(ctx context.Context) (*CreateRequest, error) {
	content, err := u.creation(ctx)
	if err != nil {
		return nil, err
	}
	req := &CreateRequest{
		Creator: u.q.User, Profile: u.q.Profile, Version: u.q.Version, CreationContent: content, Preset: "private_chat",
		InitialState: []StateEvent{},
	}
	for _, key := range transferable {
		content := json.RawMessage(`{"guest_access":"forbidden"}`) // what it means if it is absent
		if row := u.state[key]; row != nil {
			content = row.Event.Content()
		} else if key.Type != "m.room.guest_access" {
			continue // then the preset means the same
		}
		if key.Type == "m.room.join_rules" {
			if content, err = joinRulesFor(u.q.Version, content); err != nil {
				return nil, err
			}
		}
		req.InitialState = append(req.InitialState, StateEvent{Type: key.Type, Content: content})
	}
	return req, u.power(req)
}

// creation is the content of the new m.room.create: it names the old room and is of the same type. Additional creators
// are those asked for, none of the old room's.
func (u *upgrade) creation(ctx context.Context) (map[string]json.RawMessage, error) {
	predecessor := map[string]any{"room_id": u.q.Room.ID}
	if !u.q.Version.RoomIDIsCreateHash() { // later versions may leave it out
		ends, err := u.r.endIDs(ctx, u.q.Room)
		if err != nil {
			return nil, err
		}
		predecessor["event_id"] = ends[0]
	}
	content := map[string]any{"predecessor": predecessor}
	if create := u.state[authrules.StateKey{Type: "m.room.create"}]; create != nil {
		for _, member := range []string{"type", "m.federate"} { // a room that keeps to its server goes on to
			if raw, ok := matrix.Get(create.Event.Content(), member); ok {
				content[member] = json.RawMessage(raw)
			}
		}
	}
	if u.q.Version.CreatorsPrivileged() && len(u.q.Creators) > 0 {
		content["additional_creators"] = u.q.Creators
	}
	out := map[string]json.RawMessage{}
	for member, value := range content {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		out[member] = raw
	}
	return out, nil
}

// joinRulesFor are join rules in a version that may not know them: then they are the next stricter ones.
func joinRulesFor(v matrix.RoomVersion, content json.RawMessage) (json.RawMessage, error) {
	rule, _ := matrix.GetString(content, "join_rule")
	adapted := rule
	if adapted == "knock_restricted" && !v.KnockRestricted() {
		adapted = "restricted"
	}
	if adapted == "restricted" && !v.RestrictedJoins() || adapted == "knock" && !v.Knocking() {
		adapted = "invite"
	}
	if adapted == rule {
		return content, nil
	}
	var members map[string]json.RawMessage
	if err := matrix.Decode(content, &members); err != nil {
		return nil, err
	}
	members["join_rule"] = quote(adapted)
	return json.Marshal(members)
}

// power gives the new room the old one's power levels. Creators of version 12 stand above the levels and may not be in
// them; in earlier versions, who makes the room needs the power for all its first events, and gives it back with the last
// of them if the old room did not give it.
func (u *upgrade) power(req *CreateRequest) error {
	levels := u.levels.PowerLevels
	users, events := map[matrix.UserID]int64{}, map[string]int64{}
	maps.Copy(users, levels.Users)
	maps.Copy(events, levels.Events)
	levels.Users, levels.Events = users, events
	was, now := u.q.Room.Version.CreatorsPrivileged(), u.q.Version.CreatorsPrivileged()
	if now {
		delete(levels.Users, u.q.User.ID)
		for _, id := range u.q.Creators {
			delete(levels.Users, id)
		}
		if !was { // as in a new room (MSC4289)
			levels.Events["m.room.tombstone"] = max(levels.EventLevel("m.room.tombstone", true), levels.StateDefault+1, 150)
		}
		return override(req, levels)
	}
	needed := max(100, levels.StateDefault, slices.Max(append(slices.Collect(maps.Values(levels.Events)), 0)))
	if create := u.state[authrules.StateKey{Type: "m.room.create"}]; was && create != nil {
		for _, id := range matrix.Creators(create.Event) {
			levels.Users[id] = needed // what they had in the old room without being named
		}
	}
	if levels.UserLevel(u.q.User.ID) >= needed {
		return override(req, levels)
	}
	last, err := json.Marshal(powerMembers(levels))
	if err != nil {
		return err
	}
	req.InitialState = append(req.InitialState, StateEvent{Type: "m.room.power_levels", Content: last})
	levels.Users[u.q.User.ID] = needed
	return override(req, levels)
}

// powerMembers is the content of m.room.power_levels.
func powerMembers(l matrix.PowerLevels) map[string]any {
	if l.Users == nil {
		l.Users = map[matrix.UserID]int64{}
	}
	if l.Events == nil {
		l.Events = map[string]int64{}
	}
	content := map[string]any{
		"users": l.Users, "users_default": l.UsersDefault, "events": l.Events, "events_default": l.EventsDefault,
		"state_default": l.StateDefault, "ban": l.Ban, "kick": l.Kick, "redact": l.Redact, "invite": l.Invite,
	}
	if l.Notifications != nil {
		content["notifications"] = l.Notifications
	}
	return content
}

func override(req *CreateRequest, l matrix.PowerLevels) error {
	req.PowerOverride = map[string]json.RawMessage{}
	for member, value := range powerMembers(l) {
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		req.PowerOverride[member] = raw
	}
	return nil
}

// rename lets the new room be known by the aliases that have moved to it, and the old one by none of them, if the user may
// see to that. Aliases of other servers lead to the old room until somebody there moves them.
func (u *upgrade) rename(ctx context.Context, to Ref) {
	row := u.state[authrules.StateKey{Type: "m.room.canonical_alias"}]
	if row == nil {
		return
	}
	var was, stays, moves canonicalAlias
	if matrix.Decode(row.Event.Content(), &was) != nil {
		return
	}
	for _, alias := range was.Alt {
		side := &stays
		if u.moved(ctx, alias, to) {
			side = &moves
		}
		side.Alt = append(side.Alt, alias)
	}
	if was.Alias != "" {
		side := &stays
		if u.moved(ctx, was.Alias, to) {
			side = &moves
		}
		side.Alias = was.Alias
	}
	if moves.Alias == "" && len(moves.Alt) == 0 {
		return
	}
	_, err := u.set(ctx, to, "m.room.canonical_alias", moves)
	if err == nil {
		_, err = u.set(ctx, u.q.Room, "m.room.canonical_alias", stays)
	}
	if err != nil {
		u.r.log.Info("the aliases of a replaced room were not announced", "room", u.q.Room.ID, "replacement", to.ID, "err", err)
	}
}

// moved says whether an alias of ours leads to the new room.
func (u *upgrade) moved(ctx context.Context, alias string, to Ref) bool {
	parsed, err := matrix.ParseAlias(alias)
	if err != nil || !u.r.own.IsOurs(parsed.Server()) {
		return false
	}
	room, err := u.r.ResolveAlias(ctx, parsed)
	return err == nil && room == to.ID
}

// restrict keeps people from talking in the old room and from inviting into it, if the user may see to that.
func (u *upgrade) restrict(ctx context.Context) {
	levels := u.levels.PowerLevels
	least := max(50, levels.UsersDefault+1)
	levels.EventsDefault, levels.Invite = max(levels.EventsDefault, least), max(levels.Invite, least)
	if _, err := u.set(ctx, u.q.Room, "m.room.power_levels", powerMembers(levels)); err != nil {
		u.r.log.Info("a replaced room was not restricted", "room", u.q.Room.ID, "err", err)
	}
}
