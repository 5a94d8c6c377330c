package rooms

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// CreateRequest is the body of createRoom, checked for its shape (client-server API, POST /createRoom).
type CreateRequest struct {
	Creator Sender
	Profile Profile // the creator's, for its own member event

	Visibility      string // "public" lists the room in the directory
	Alias           matrix.RoomAlias
	Name            string
	Topic           string
	Invite          []matrix.UserID
	InviteAddresses []AddressInvite // of whom only that is known; Room and Sender are filled in
	Version         matrix.RoomVersion
	CreationContent map[string]json.RawMessage
	InitialState    []StateEvent
	Preset          string
	Direct          bool
	PowerOverride   map[string]json.RawMessage
}

// StateEvent is a state event as clients write it.
type StateEvent struct {
	Type     string          `json:"type"`
	StateKey string          `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

// Profile is what a member event says of its user.
type Profile struct {
	DisplayName string
	AvatarURL   string
}

// presets are the join rule, history visibility, guest access and whether invitees get the creator's power.
var presets = map[string]struct {
	joinRule, visibility, guests string
	trusted                      bool
}{
	"private_chat":         {"invite", "shared", "can_join", false},
	"trusted_private_chat": {"invite", "shared", "can_join", true},
	"public_chat":          {"public", "shared", "forbidden", false},
}

// Create makes a room with its first events in one transaction and then invites, and returns its ID. Invitations that
// fail do not undo the room: it exists, and whoever could not be invited can be invited again.
func (r *Rooms) Create(ctx context.Context, req CreateRequest) (matrix.RoomID, error) {
	if req.Version == 0 {
		req.Version = matrix.DefaultRoomVersion
	}
	if req.Preset == "" {
		req.Preset = "private_chat"
		if req.Visibility == "public" {
			req.Preset = "public_chat"
		}
	}
	if _, ok := presets[req.Preset]; !ok {
		return "", matrix.InvalidParam("There is no preset %q.", req.Preset)
	}
	events, err := r.firstEvents(&req)
	if err != nil {
		return "", err
	}
	ref, err := r.newRoom(ctx, &req, events[0])
	if err != nil {
		return "", err
	}
	u := newUnit()
	u.makes = &store.NewRoom{ID: ref.ID, Version: ref.Version, Public: req.Visibility == "public", Alias: req.Alias, Creator: req.Creator.NID}
	for _, t := range events {
		u.entries = append(u.entries, &entry{template: t, sender: req.Creator.NID})
	}
	if err := r.append(ctx, ref, u); err != nil {
		return "", err
	}
	r.cache.refs.Set(ref.ID, ref)
	if u.makes.Public {
		r.directory.forget()
	}
	r.inviteAll(ctx, ref, &req)
	return ref.ID, nil
}

// newRoom finds the new room's ID and number. From version 12 the ID is the hash of the create event, which is built
// here once to learn it and again, to the same bytes, when it goes through the door.
func (r *Rooms) newRoom(ctx context.Context, req *CreateRequest, create *matrix.Template) (Ref, error) {
	nid, err := r.db.NextNID(store.KindRoom)
	if err != nil {
		return Ref{}, err
	}
	ref := Ref{NID: store.RoomNID(nid), Version: req.Version}
	if req.Version.RoomIDIsCreateHash() {
		t := *create
		t.Depth = 1
		ev, err := t.Build(req.Version, r.own.Name, r.own.KeyID, r.own.Key)
		if err != nil {
			return Ref{}, err
		}
		ref.ID = ev.RoomID()
		return ref, nil
	}
	var random [18]byte
	rand.Read(random[:])
	ref.ID = matrix.RoomID("!" + base64.RawURLEncoding.EncodeToString(random[:]) + ":" + string(r.own.Name))
	return ref, nil
}

// creationTime is now, and later than any other room's: from version 12 two rooms that one user makes alike at the same
// time would be one.
func (r *Rooms) creationTime() int64 {
	for {
		last := r.created.Load()
		at := max(r.now().UnixMilli(), last+1)
		if r.created.CompareAndSwap(last, at) {
			return at
		}
	}
}

// firstEvents are the events of a new room, in the order of the spec: create, the creator's join, power levels, alias,
// preset, initial state, name and topic.
func (r *Rooms) firstEvents(req *CreateRequest) ([]*matrix.Template, error) {
	b := &firstState{at: r.creationTime(), creator: req.Creator.ID}
	preset := presets[req.Preset]
	create, err := createContent(req)
	if err != nil {
		return nil, err
	}
	b.add("m.room.create", "", create)
	b.add("m.room.member", string(req.Creator.ID), memberContent("join", req.Profile, nil))
	levels, err := powerContent(req)
	if err != nil {
		return nil, err
	}
	b.add("m.room.power_levels", "", levels)
	if req.Alias != "" {
		b.add("m.room.canonical_alias", "", map[string]any{"alias": req.Alias})
	}
	given := map[[2]string]bool{}
	for _, s := range req.InitialState {
		given[[2]string{s.Type, s.StateKey}] = true
	}
	for _, p := range [][3]string{
		{"m.room.join_rules", "join_rule", preset.joinRule},
		{"m.room.history_visibility", "history_visibility", preset.visibility},
		{"m.room.guest_access", "guest_access", preset.guests},
	} {
		if !given[[2]string{p[0], ""}] {
			b.add(p[0], "", map[string]any{p[1]: p[2]})
		}
	}
	for _, s := range req.InitialState {
		switch s.Type {
		case "m.room.create", "m.room.member":
			return nil, matrix.InvalidParam("initial_state may not have events of type %s.", s.Type)
		case "m.room.power_levels":
			if err := checkLevels(s.Content); s.StateKey == "" && err != nil {
				return nil, err
			}
		}
		b.add(s.Type, s.StateKey, s.Content)
	}
	if req.Name != "" {
		b.add("m.room.name", "", map[string]any{"name": req.Name})
	}
	if req.Topic != "" {
		b.add("m.room.topic", "", topicContent(req.Topic))
	}
	return b.events, b.err
}

// topicContent has the topic in both of its forms (MSC3765).
func topicContent(topic string) map[string]any {
	return map[string]any{
		"topic":   topic,
		"m.topic": map[string]any{"m.text": []any{map[string]any{"body": topic}}},
	}
}

// firstState collects the first events of a room.
type firstState struct {
	at      int64
	creator matrix.UserID
	events  []*matrix.Template
	err     error
}

func (b *firstState) add(typ, key string, content any) {
	raw, err := matrix.Encode(content)
	if err != nil {
		if b.err == nil {
			b.err = matrix.BadJSON("The content of %s is not usable.", typ).With(err)
		}
		return
	}
	b.events = append(b.events, &matrix.Template{
		Sender: b.creator, Type: typ, StateKey: &key, Content: raw, OriginServerTS: b.at,
	})
}

// createContent is the content of m.room.create. What the client gives stays, except what is the server's to say.
func createContent(req *CreateRequest) (map[string]json.RawMessage, error) {
	content := maps.Clone(req.CreationContent)
	if content == nil {
		content = map[string]json.RawMessage{}
	}
	content["room_version"] = quote(req.Version.String())
	delete(content, "creator")
	if !req.Version.CreatorInSender() {
		content["creator"] = quote(string(req.Creator.ID))
	}
	if req.Version.CreatorsPrivileged() && req.Preset == "trusted_private_chat" && len(req.Invite) > 0 {
		creators, err := additionalCreators(content["additional_creators"], req)
		if err != nil {
			return nil, err
		}
		content["additional_creators"] = creators
	}
	return content, nil
}

// additionalCreators adds the invitees of a trusted private chat to the creators of a version 12 room.
func additionalCreators(given json.RawMessage, req *CreateRequest) (json.RawMessage, error) {
	var creators []matrix.UserID
	if given != nil {
		if err := matrix.Decode(given, &creators); err != nil {
			return nil, matrix.BadJSON("additional_creators is a list of user IDs.").With(err)
		}
	}
	for _, id := range req.Invite {
		if !slices.Contains(creators, id) {
			creators = append(creators, id)
		}
	}
	return json.Marshal(creators)
}

// powerContent is the content of the first m.room.power_levels: the preset's, then the client's override member by
// member.
func powerContent(req *CreateRequest) (map[string]json.RawMessage, error) {
	users := map[string]int{}
	if !req.Version.CreatorsPrivileged() {
		users[string(req.Creator.ID)] = 100
		if presets[req.Preset].trusted {
			for _, id := range req.Invite {
				users[string(id)] = 100
			}
		}
	}
	events := map[string]int{
		"m.room.name": 50, "m.room.avatar": 50, "m.room.canonical_alias": 50, "m.room.power_levels": 100,
		"m.room.history_visibility": 100, "m.room.encryption": 100, "m.room.server_acl": 100, "m.room.tombstone": 100,
	}
	if req.Version.CreatorsPrivileged() {
		events["m.room.tombstone"] = 150 // so that administrators cannot upgrade a room away from its creators (MSC4289)
	}
	levels := map[string]any{
		"users": users, "users_default": 0, "events": events, "events_default": 0, "state_default": 50,
		"ban": 50, "kick": 50, "redact": 50, "invite": 0, "notifications": map[string]int{"room": 50},
	}
	out := make(map[string]json.RawMessage, len(levels))
	for key, value := range levels {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		out[key] = raw
	}
	maps.Copy(out, req.PowerOverride)
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return out, checkLevels(raw)
}

// memberContent is the content of an m.room.member of ours.
func memberContent(membership string, p Profile, more map[string]any) map[string]any {
	content := map[string]any{"membership": membership}
	if p.DisplayName != "" {
		content["displayname"] = p.DisplayName
	}
	if p.AvatarURL != "" {
		content["avatar_url"] = p.AvatarURL
	}
	maps.Copy(content, more)
	return content
}

func quote(s string) json.RawMessage {
	raw, err := json.Marshal(s)
	if err != nil {
		return json.RawMessage(`""`) // a string always encodes
	}
	return raw
}

// inviteAll sends the invitations of a new room. A person who cannot be reached now does not take the room away from
// the others.
func (r *Rooms) inviteAll(ctx context.Context, ref Ref, req *CreateRequest) {
	for _, id := range req.Invite {
		if id == req.Creator.ID {
			continue
		}
		_, err := r.Invite(ctx, MemberRequest{Room: ref, Sender: req.Creator, Target: id, Direct: req.Direct})
		if err != nil {
			r.log.Warn("invitation to a new room failed", "room", ref.ID, "server", id.Server(), "err", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, inviteAddressesTime)
	defer cancel()
	for _, q := range req.InviteAddresses {
		q.Room, q.Sender = ref, req.Creator
		if err := r.inviteAddress(ctx, q, req.Direct); err != nil {
			r.log.Warn("invitation of an address to a new room failed", "room", ref.ID, "server", q.By.Server, "err", err)
		}
	}
}
