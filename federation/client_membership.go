package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"conclave/internal/matrix"
)

const (
	v1 = "/_matrix/federation/v1"
	v2 = "/_matrix/federation/v2"
)

// Draft is what is taken from a resident server's template of a membership event (makeJoin, makeLeave, makeKnock):
// the event's place in the room, and nothing else that a stranger wrote. The event itself is built here and signed.
type Draft struct {
	Version    matrix.RoomVersion
	PrevEvents []matrix.EventID
	AuthEvents []matrix.EventID
	Depth      int64

	// AuthorisedVia is join_authorised_via_users_server for a join that a restricted room's conditions allow, else "".
	AuthorisedVia matrix.UserID
}

// MakeJoin asks a resident server for what a join needs.
func (c *Client) MakeJoin(ctx context.Context, server matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []matrix.RoomVersion) (*Draft, error) {
	return c.draft(ctx, "makeJoin", "make_join", "join", server, room, user, versions)
}

// MakeKnock asks a resident server for what a knock needs.
func (c *Client) MakeKnock(ctx context.Context, server matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []matrix.RoomVersion) (*Draft, error) {
	return c.draft(ctx, "makeKnock", "make_knock", "knock", server, room, user, versions)
}

// MakeLeave asks a resident server for what a leave needs (rejecting an invite, taking back a knock).
func (c *Client) MakeLeave(ctx context.Context, server matrix.ServerName, room matrix.RoomID, user matrix.UserID) (*Draft, error) {
	return c.draft(ctx, "makeLeave", "make_leave", "leave", server, room, user, nil)
}

func (c *Client) draft(ctx context.Context, operation, verb, membership string, server matrix.ServerName, room matrix.RoomID, user matrix.UserID, versions []matrix.RoomVersion) (*Draft, error) {
	query := url.Values{}
	for _, v := range versions {
		query.Add("ver", v.String())
	}
	in := call{
		operation: operation, server: server, method: http.MethodGet, query: query, budget: queryBudget,
		path: path(v1+"/"+verb, string(room), string(user)),
	}
	raw, err := c.raw(ctx, in)
	if err != nil {
		return nil, err
	}
	draft, err := readDraft(raw, room, user, membership)
	if err != nil {
		return nil, unusable(in, err)
	}
	return draft, nil
}

// readDraft checks that a template is what was asked for and takes its place in the room from it.
func readDraft(raw []byte, room matrix.RoomID, user matrix.UserID, membership string) (*Draft, error) {
	var answer struct {
		Version *string `json:"room_version"`
		Event   struct {
			Type       string            `json:"type"`
			Room       matrix.RoomID     `json:"room_id"`
			Sender     matrix.UserID     `json:"sender"`
			StateKey   *string           `json:"state_key"`
			PrevEvents []json.RawMessage `json:"prev_events"`
			AuthEvents []json.RawMessage `json:"auth_events"`
			Depth      int64             `json:"depth"`
			Content    struct {
				Membership string        `json:"membership"`
				Via        matrix.UserID `json:"join_authorised_via_users_server"`
			} `json:"content"`
		} `json:"event"`
	}
	if err := matrix.Decode(raw, &answer); err != nil {
		return nil, err
	}
	e := &answer.Event
	if e.Type != "m.room.member" || e.Room != room || e.Sender != user || e.StateKey == nil ||
		*e.StateKey != string(user) || e.Content.Membership != membership {
		return nil, errors.New("the template is not the event that was asked for")
	}
	version := "1" // what servers of that age do not say
	if answer.Version != nil {
		version = *answer.Version
	}
	d := &Draft{Depth: e.Depth}
	var ok bool
	if d.Version, ok = matrix.ParseRoomVersion(version); !ok {
		return nil, fmt.Errorf("the room has version %q, which is not known here", version)
	}
	var err error
	if d.PrevEvents, err = eventIDs(e.PrevEvents, 20); err != nil {
		return nil, fmt.Errorf("prev_events: %w", err)
	}
	if d.AuthEvents, err = eventIDs(e.AuthEvents, 10); err != nil {
		return nil, fmt.Errorf("auth_events: %w", err)
	}
	if d.Depth < 0 {
		return nil, errors.New("depth is negative")
	}
	if membership == "join" && e.Content.Via != "" {
		if d.AuthorisedVia, err = matrix.ParseUserID(string(e.Content.Via)); err != nil {
			return nil, fmt.Errorf("join_authorised_via_users_server: %w", err)
		}
	}
	return d, nil
}

// eventIDs reads event references: IDs, or pairs of ID and hash as in room versions 1 and 2.
func eventIDs(list []json.RawMessage, limit int) ([]matrix.EventID, error) {
	if len(list) > limit {
		return nil, fmt.Errorf("more than %d", limit)
	}
	ids := make([]matrix.EventID, 0, len(list))
	for _, raw := range list {
		var id string
		if json.Unmarshal(raw, &id) != nil {
			var pair []json.RawMessage
			if json.Unmarshal(raw, &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[0], &id) != nil {
				return nil, errors.New("neither an event ID nor a pair with one")
			}
		}
		parsed, err := matrix.ParseEventID(id)
		if err != nil {
			return nil, err
		}
		ids = append(ids, parsed)
	}
	return ids, nil
}

// StatePart says to which list of an answer an event belongs.
type StatePart int

// The lists of sendJoin and of getRoomState.
const (
	StateEvents StatePart = iota
	AuthChain
)

// JoinAnswer is what sendJoin answers besides events.
type JoinAnswer struct {
	Event          json.RawMessage // the join with the resident server's signature, nil if it did not say
	MembersOmitted bool
	ServersInRoom  []matrix.ServerName
}

// SendJoin hands a signed join to a resident server. The events of its answer, which may be a hundred thousand, go to
// each one by one, as they came and unchecked; an error from each ends the call and is returned as it is.
func (c *Client) SendJoin(ctx context.Context, server matrix.ServerName, room matrix.RoomID, id matrix.EventID, event []byte, each func(StatePart, json.RawMessage) error) (*JoinAnswer, error) {
	in := call{
		operation: "sendJoinV2", server: server, method: http.MethodPut, body: event, budget: joinBudget,
		path: path(v2+"/send_join", string(room), string(id)),
	}
	answer := &JoinAnswer{}
	err := c.events(ctx, in, []string{"state", "auth_chain"}, func(list string, raw []byte) error {
		if list == "auth_chain" {
			return each(AuthChain, raw)
		}
		return each(StateEvents, raw)
	}, answer.member)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (a *JoinAnswer) member(name string, raw []byte) error {
	var err error
	switch name {
	case "state", "auth_chain":
		return errStream // not a list
	case "event":
		a.Event = raw
	case "members_omitted":
		err = json.Unmarshal(raw, &a.MembersOmitted)
	case "servers_in_room":
		err = json.Unmarshal(raw, &a.ServersInRoom)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", errStream, name)
	}
	return nil
}

// SendLeave hands a signed leave to a resident server.
func (c *Client) SendLeave(ctx context.Context, server matrix.ServerName, room matrix.RoomID, id matrix.EventID, event []byte) error {
	return c.json(ctx, call{
		operation: "sendLeaveV2", server: server, method: http.MethodPut, body: event, budget: queryBudget,
		path: path(v2+"/send_leave", string(room), string(id)),
	}, nil)
}

// SendKnock hands a signed knock to a resident server and returns the room's state events for the knocking user.
func (c *Client) SendKnock(ctx context.Context, server matrix.ServerName, room matrix.RoomID, id matrix.EventID, event []byte) ([]json.RawMessage, error) {
	var answer struct {
		State []json.RawMessage `json:"knock_room_state"`
	}
	err := c.json(ctx, call{
		operation: "sendKnock", server: server, method: http.MethodPut, body: event, budget: queryBudget,
		path: path(v1+"/send_knock", string(room), string(id)),
	}, &answer)
	return answer.State, err
}

// SendInvite asks the invited user's server to accept and sign an invite and returns the event as it came back, not
// yet compared with the one that was sent. state is what tells the user about the room. Servers that do not know the
// second version of the operation are asked by the first, in rooms of versions 1 and 2.
func (c *Client) SendInvite(ctx context.Context, server matrix.ServerName, version matrix.RoomVersion, room matrix.RoomID, id matrix.EventID, event []byte, state []json.RawMessage) (json.RawMessage, error) {
	if state == nil {
		state = []json.RawMessage{}
	}
	body, err := json.Marshal(map[string]any{
		"room_version": version.String(), "event": json.RawMessage(event), "invite_room_state": state,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding an invite: %w", err)
	}
	var answer struct {
		Event json.RawMessage `json:"event"`
	}
	in := call{
		operation: "sendInviteV2", server: server, method: http.MethodPut, body: body, budget: queryBudget,
		path: path(v2+"/invite", string(room), string(id)),
	}
	err = c.json(ctx, in, &answer)
	var refused *Error
	if errors.As(err, &refused) && version.EventIDsInEvent() &&
		(refused.Status == http.StatusBadRequest || refused.Status == http.StatusNotFound) {
		return c.sendInviteV1(ctx, server, room, id, event, state)
	}
	if err == nil && answer.Event == nil {
		err = unusable(in, errors.New("it has no event"))
	}
	return answer.Event, err
}

func (c *Client) sendInviteV1(ctx context.Context, server matrix.ServerName, room matrix.RoomID, id matrix.EventID, event []byte, state []json.RawMessage) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(event, &members); err != nil {
		return nil, fmt.Errorf("encoding an invite: %w", err)
	}
	unsigned, err := json.Marshal(map[string]any{"invite_room_state": state})
	if err != nil {
		return nil, fmt.Errorf("encoding an invite: %w", err)
	}
	members["unsigned"] = unsigned
	body, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("encoding an invite: %w", err)
	}
	in := call{
		operation: "sendInviteV1", server: server, method: http.MethodPut, body: body, budget: queryBudget,
		path: path(v1+"/invite", string(room), string(id)),
	}
	raw, err := c.rawAny(ctx, in)
	if err != nil {
		return nil, err
	}
	var pair []json.RawMessage // [200, {"event": …}]
	if json.Unmarshal(raw, &pair) != nil || len(pair) != 2 {
		return nil, unusable(in, errors.New("it is not a pair"))
	}
	signed, ok := matrix.Get(pair[1], "event")
	if !ok {
		return nil, unusable(in, errors.New("it has no event"))
	}
	return signed, nil
}

// ExchangeThirdPartyInvite asks a resident server to turn a bound third-party invite into a membership event.
func (c *Client) ExchangeThirdPartyInvite(ctx context.Context, server matrix.ServerName, room matrix.RoomID, body []byte) error {
	return c.json(ctx, call{
		operation: "exchangeThirdPartyInvite", server: server, method: http.MethodPut, body: body, budget: queryBudget,
		path: path(v1+"/exchange_third_party_invite", string(room)),
	}, nil)
}
