package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"conclave/internal/matrix"
)

// SendTransaction delivers a transaction and returns, for each event the other server would not take, what it says
// about it (text of a stranger).
func (c *Client) SendTransaction(ctx context.Context, server matrix.ServerName, txn string, body []byte) (map[matrix.EventID]string, error) {
	var answer struct {
		PDUs map[matrix.EventID]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	err := c.json(ctx, call{
		operation: "sendTransaction", server: server, method: http.MethodPut, body: body, budget: queryBudget,
		path: path(v1+"/send", txn),
	}, &answer)
	var odd *Error
	if errors.As(err, &odd) && odd.Status == http.StatusOK {
		return nil, nil // 200 is the acknowledgement, whatever else is said
	}
	if err != nil {
		return nil, err
	}
	refused := map[matrix.EventID]string{}
	for id, result := range answer.PDUs {
		if result.Error != "" {
			refused[id] = result.Error
		}
	}
	return refused, nil
}

// GetEvent asks for one event by its ID.
func (c *Client) GetEvent(ctx context.Context, server matrix.ServerName, id matrix.EventID) (json.RawMessage, error) {
	in := call{
		operation: "getEvent", server: server, method: http.MethodGet, budget: queryBudget,
		path: path(v1+"/event", string(id)),
	}
	pdus, err := c.list(ctx, in, "pdus")
	if err == nil && len(pdus) != 1 {
		err = unusable(in, fmt.Errorf("%d events instead of one", len(pdus)))
	}
	if err != nil {
		return nil, err
	}
	return pdus[0], nil
}

// GetRoomState asks for the state before an event with its auth chain; each gets the events one by one, as they came
// and unchecked.
func (c *Client) GetRoomState(ctx context.Context, server matrix.ServerName, room matrix.RoomID, at matrix.EventID, each func(StatePart, json.RawMessage) error) error {
	in := call{
		operation: "getRoomState", server: server, method: http.MethodGet, budget: stateBudget,
		path: path(v1+"/state", string(room)), query: url.Values{"event_id": {string(at)}},
	}
	return c.events(ctx, in, []string{"pdus", "auth_chain"}, func(list string, raw []byte) error {
		if list == "auth_chain" {
			return each(AuthChain, raw)
		}
		return each(StateEvents, raw)
	}, notLists("pdus", "auth_chain"))
}

// notLists refuses members that should have been lists, and ignores all others.
func notLists(names ...string) func(string, []byte) error {
	return func(member string, _ []byte) error {
		for _, name := range names {
			if member == name {
				return errStream
			}
		}
		return nil
	}
}

// GetRoomStateIDs asks for the IDs of the state before an event and of its auth chain.
func (c *Client) GetRoomStateIDs(ctx context.Context, server matrix.ServerName, room matrix.RoomID, at matrix.EventID) (state, authChain []matrix.EventID, err error) {
	in := call{
		operation: "getRoomStateIds", server: server, method: http.MethodGet, budget: listBudget,
		path: path(v1+"/state_ids", string(room)), query: url.Values{"event_id": {string(at)}},
	}
	err = c.events(ctx, in, []string{"pdu_ids", "auth_chain_ids"}, func(list string, raw []byte) error {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return unusable(in, errors.New("an event ID is not a string"))
		}
		id, err := matrix.ParseEventID(s)
		if err != nil {
			return unusable(in, err)
		}
		if list == "pdu_ids" {
			state = append(state, id)
		} else {
			authChain = append(authChain, id)
		}
		return nil
	}, notLists("pdu_ids", "auth_chain_ids"))
	return state, authChain, err
}

// GetEventAuth asks for the auth chain of an event.
func (c *Client) GetEventAuth(ctx context.Context, server matrix.ServerName, room matrix.RoomID, id matrix.EventID) ([]json.RawMessage, error) {
	return c.list(ctx, call{
		operation: "getEventAuth", server: server, method: http.MethodGet, budget: listBudget,
		path: path(v1+"/event_auth", string(room), string(id)),
	}, "auth_chain")
}

// BackfillRoom asks for events and what came before them, limit at most.
func (c *Client) BackfillRoom(ctx context.Context, server matrix.ServerName, room matrix.RoomID, from []matrix.EventID, limit int) ([]json.RawMessage, error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	for _, id := range from {
		query.Add("v", string(id))
	}
	return c.list(ctx, call{
		operation: "backfillRoom", server: server, method: http.MethodGet, budget: listBudget,
		path: path(v1+"/backfill", string(room)), query: query,
	}, "pdus")
}

// GetMissingEvents asks for what lies between events that are held (earliest) and events whose parents are not
// (latest), at most limit events and none below minDepth.
func (c *Client) GetMissingEvents(ctx context.Context, server matrix.ServerName, room matrix.RoomID, earliest, latest []matrix.EventID, limit int, minDepth int64) ([]json.RawMessage, error) {
	body, err := json.Marshal(map[string]any{
		"earliest_events": nonNil(earliest), "latest_events": nonNil(latest), "limit": limit, "min_depth": minDepth,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding a request for missing events: %w", err)
	}
	return c.list(ctx, call{
		operation: "getMissingPreviousEvents", server: server, method: http.MethodPost, body: body, budget: listBudget,
		path: path(v1+"/get_missing_events", string(room)),
	}, "events")
}

func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// GetEventByTimestamp asks for the event closest to a time in ms, after it or before it.
func (c *Client) GetEventByTimestamp(ctx context.Context, server matrix.ServerName, room matrix.RoomID, ts int64, forwards bool) (matrix.EventID, int64, error) {
	dir := "b"
	if forwards {
		dir = "f"
	}
	in := call{
		operation: "getEventByTimestamp", server: server, method: http.MethodGet, budget: queryBudget,
		path:  path(v1+"/timestamp_to_event", string(room)),
		query: url.Values{"ts": {strconv.FormatInt(ts, 10)}, "dir": {dir}},
	}
	var answer struct {
		ID string `json:"event_id"`
		TS int64  `json:"origin_server_ts"`
	}
	if err := c.json(ctx, in, &answer); err != nil {
		return "", 0, err
	}
	id, err := matrix.ParseEventID(answer.ID)
	if err != nil {
		return "", 0, unusable(in, err)
	}
	return id, answer.TS, nil
}

// AskPolicyServerToSign asks a room's policy server for its signature on an event and returns it, not yet verified.
func (c *Client) AskPolicyServerToSign(ctx context.Context, server matrix.ServerName, event []byte) ([]byte, error) {
	in := call{
		operation: "askPolicyServerToSign", server: server, method: http.MethodPost, body: event, budget: queryBudget,
		path: "/_matrix/policy/v1/sign",
	}
	raw, err := c.raw(ctx, in)
	if err != nil {
		return nil, err
	}
	text, ok := matrix.GetString(raw, string(server), "ed25519:policy_server")
	if !ok {
		return nil, unusable(in, errors.New("it holds no signature of the policy server"))
	}
	signature, err := matrix.DecodeBase64(text)
	if err != nil {
		return nil, unusable(in, err)
	}
	return signature, nil
}
