package rooms

import (
	"context"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// Summary is what may be told of a room to people who are not in it, in the words of the room directory, of space
// hierarchies and of room summaries.
type Summary struct {
	RoomID        matrix.RoomID    `json:"room_id"`
	Name          string           `json:"name,omitempty"`
	Topic         string           `json:"topic,omitempty"`
	AvatarURL     string           `json:"avatar_url,omitempty"`
	Alias         matrix.RoomAlias `json:"canonical_alias,omitempty"`
	JoinRule      string           `json:"join_rule,omitempty"`
	RoomType      string           `json:"room_type,omitempty"`
	Members       int              `json:"num_joined_members"`
	WorldReadable bool             `json:"world_readable"`
	GuestsMayJoin bool             `json:"guest_can_join"`
	Encryption    string           `json:"encryption,omitempty"`
	RoomVersion   string           `json:"room_version,omitempty"`
	AllowedRooms  []matrix.RoomID  `json:"allowed_room_ids,omitempty"`

	federates bool      // members of other servers may join
	public    bool      // it is in the server's own directory
	networks  []Network // in whose directories it is
}

// summaryKeys are the state that a summary tells of.
var summaryKeys = []authrules.StateKey{
	{Type: "m.room.create"}, {Type: "m.room.name"}, {Type: "m.room.topic"}, {Type: "m.room.avatar"}, {Type: "m.room.canonical_alias"},
	{Type: "m.room.join_rules"}, {Type: "m.room.history_visibility"}, {Type: "m.room.guest_access"}, {Type: "m.room.encryption"},
}

// Summarise tells of a room that we are in.
func (r *Rooms) Summarise(ctx context.Context, ref Ref) (*Summary, error) {
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return nil, err
	}
	rows, err := r.StateEvents(ctx, ref.NID, state, summaryKeys)
	if err != nil {
		return nil, err
	}
	s := &Summary{RoomID: ref.ID, RoomVersion: ref.Version.String()}
	err = r.db.Read(ctx, func(tx *store.Tx) error {
		counts, err := tx.MemberCounts(ref.NID)
		s.Members = counts[store.Join]
		return err
	})
	if err != nil {
		return nil, err
	}
	content := func(typ string) []byte {
		if row := rows[authrules.StateKey{Type: typ}]; row != nil {
			return row.Event.Content()
		}
		return []byte(`{}`)
	}
	text := func(typ, name string) string {
		value, _ := matrix.GetString(content(typ), name)
		return value
	}
	s.Name, s.Topic, s.AvatarURL = text("m.room.name", "name"), text("m.room.topic", "topic"), text("m.room.avatar", "url")
	s.Alias, s.RoomType = matrix.RoomAlias(text("m.room.canonical_alias", "alias")), text("m.room.create", "type")
	s.Encryption = text("m.room.encryption", "algorithm")
	rule := matrix.ParseJoinRule(content("m.room.join_rules"))
	s.JoinRule, s.AllowedRooms = rule.Rule, rule.AllowedRooms
	s.WorldReadable = matrix.ParseHistoryVisibility(content("m.room.history_visibility")) == matrix.WorldReadable
	s.GuestsMayJoin = text("m.room.guest_access", "guest_access") == "can_join"
	federate, ok := matrix.Get(content("m.room.create"), "m.federate")
	s.federates = !ok || string(federate) != "false"
	return s, nil
}

// OpenToAll says whether everybody may know of a room and ask to be let in: without an invitation, or with a knock.
func (s *Summary) OpenToAll() bool {
	switch s.JoinRule {
	case "public", "knock", "knock_restricted":
		return true
	}
	return s.WorldReadable
}

// clean bounds a summary that another server gave: text that no room has, or that is too long to be shown, is left out. It
// reports whether the rest can be used.
func (s *Summary) clean() bool {
	const most = 64 << 10 // of the texts of an event
	if _, err := matrix.ParseRoomID(string(s.RoomID)); err != nil || s.Members < 0 {
		return false
	}
	if _, err := matrix.ParseAlias(string(s.Alias)); err != nil {
		s.Alias = ""
	}
	for _, text := range []*string{&s.Name, &s.Topic, &s.AvatarURL, &s.JoinRule, &s.RoomType, &s.Encryption, &s.RoomVersion} {
		if len(*text) > most {
			*text = ""
		}
	}
	if len(s.AllowedRooms) > 100 {
		s.AllowedRooms = s.AllowedRooms[:100]
	}
	return true
}
