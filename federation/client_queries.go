package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"conclave/internal/matrix"
)

// GetVersion asks which software a server runs.
func (c *Client) GetVersion(ctx context.Context, server matrix.ServerName) (name, version string, err error) {
	var answer struct {
		Server struct {
			Name    string `json:"name"`
			Version string `json:"version"`
		} `json:"server"`
	}
	err = c.json(ctx, call{
		operation: "getVersion", server: server, method: http.MethodGet, unsigned: true, budget: queryBudget,
		path: v1 + "/version",
	}, &answer)
	return answer.Server.Name, answer.Server.Version, err
}

// GetServerKey asks a server for its own key document.
func (c *Client) GetServerKey(ctx context.Context, server matrix.ServerName) ([]byte, error) {
	return c.raw(ctx, call{
		operation: "getServerKey", server: server, method: http.MethodGet, unsigned: true, budget: keysBudget,
		path: "/_matrix/key/v2/server",
	})
}

// KeyCriteria is what a notary is asked for: servers, their key IDs, and the time in ms until which each should be
// valid. A server without key IDs is asked for all.
type KeyCriteria map[matrix.ServerName]map[matrix.KeyID]int64

// QueryNotary asks a notary for other servers' key documents (bulkPerspectivesKeyQuery), or, if it does not know that
// operation, for those of the one server that is wanted (perspectivesKeyQuery).
func (c *Client) QueryNotary(ctx context.Context, notary matrix.ServerName, wanted KeyCriteria) ([]json.RawMessage, error) {
	documents, err := c.bulkPerspectivesKeyQuery(ctx, notary, wanted)
	var remote *Error
	if len(wanted) == 1 && errors.As(err, &remote) && (remote.Status == http.StatusNotFound || remote.Status == http.StatusMethodNotAllowed) {
		for server, keys := range wanted {
			return c.perspectivesKeyQuery(ctx, notary, server, keys)
		}
	}
	return documents, err
}

func (c *Client) perspectivesKeyQuery(ctx context.Context, notary, server matrix.ServerName, keys map[matrix.KeyID]int64) ([]json.RawMessage, error) {
	query := url.Values{}
	if until := slices.Max(append(slices.Collect(maps.Values(keys)), 0)); until > 0 {
		query.Set("minimum_valid_until_ts", strconv.FormatInt(until, 10))
	}
	return c.list(ctx, call{
		operation: "perspectivesKeyQuery", server: notary, method: http.MethodGet, query: query, unsigned: true,
		path: path("/_matrix/key/v2/query", string(server)), budget: keysBudget,
	}, "server_keys")
}

func (c *Client) bulkPerspectivesKeyQuery(ctx context.Context, notary matrix.ServerName, wanted KeyCriteria) ([]json.RawMessage, error) {
	type criteria struct {
		Until int64 `json:"minimum_valid_until_ts,omitempty"`
	}
	servers := map[matrix.ServerName]map[matrix.KeyID]criteria{}
	for server, keys := range wanted {
		servers[server] = map[matrix.KeyID]criteria{}
		for id, until := range keys {
			servers[server][id] = criteria{until}
		}
	}
	body, err := json.Marshal(map[string]any{"server_keys": servers})
	if err != nil {
		return nil, fmt.Errorf("encoding a query for keys: %w", err)
	}
	return c.list(ctx, call{
		operation: "bulkPerspectivesKeyQuery", server: notary, method: http.MethodPost, body: body, unsigned: true,
		path: "/_matrix/key/v2/query", budget: keysBudget,
	}, "server_keys")
}

// QueryProfile asks for the profile of a user of that server, whole or one field.
func (c *Client) QueryProfile(ctx context.Context, user matrix.UserID, field string) (json.RawMessage, error) {
	query := url.Values{"user_id": {string(user)}}
	if field != "" {
		query.Set("field", field)
	}
	return c.raw(ctx, call{
		operation: "queryProfile", server: user.Server(), method: http.MethodGet, query: query, budget: queryBudget,
		path: v1 + "/query/profile",
	})
}

// QueryRoomDirectory asks the alias's server for the room behind it and for servers that are in it.
func (c *Client) QueryRoomDirectory(ctx context.Context, alias matrix.RoomAlias) (matrix.RoomID, []matrix.ServerName, error) {
	in := call{
		operation: "queryRoomDirectory", server: alias.Server(), method: http.MethodGet, budget: queryBudget,
		path: v1 + "/query/directory", query: url.Values{"room_alias": {string(alias)}},
	}
	var answer struct {
		Room    string   `json:"room_id"`
		Servers []string `json:"servers"`
	}
	if err := c.json(ctx, in, &answer); err != nil {
		return "", nil, err
	}
	room, err := matrix.ParseRoomID(answer.Room)
	if err != nil {
		return "", nil, unusable(in, err)
	}
	return room, serverNames(answer.Servers), nil
}

// serverNames keeps the valid names of a list.
func serverNames(list []string) []matrix.ServerName {
	var names []matrix.ServerName
	for _, s := range list {
		if name, err := matrix.ParseServerName(s); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// PublicRoomsQuery is a page of another server's room directory, filtered if Filter is not nil.
type PublicRoomsQuery struct {
	Limit                int
	Since                string
	IncludeAllNetworks   bool
	ThirdPartyInstanceID string
	Filter               json.RawMessage // the filter object of queryPublicRooms
}

// PublicRooms asks for a page of another server's room directory (getPublicRooms or queryPublicRooms). The answer has
// the form of the client API.
func (c *Client) PublicRooms(ctx context.Context, server matrix.ServerName, q PublicRoomsQuery) (json.RawMessage, error) {
	in := call{server: server, path: v1 + "/publicRooms", budget: listBudget}
	if q.Filter == nil {
		in.operation, in.method, in.query = "getPublicRooms", http.MethodGet, q.values()
		return c.raw(ctx, in)
	}
	body := map[string]any{"filter": q.Filter}
	if q.Limit > 0 {
		body["limit"] = q.Limit
	}
	if q.Since != "" {
		body["since"] = q.Since
	}
	if q.IncludeAllNetworks {
		body["include_all_networks"] = true
	}
	if q.ThirdPartyInstanceID != "" {
		body["third_party_instance_id"] = q.ThirdPartyInstanceID
	}
	var err error
	if in.body, err = json.Marshal(body); err != nil {
		return nil, fmt.Errorf("encoding a query for public rooms: %w", err)
	}
	in.operation, in.method = "queryPublicRooms", http.MethodPost
	return c.raw(ctx, in)
}

func (q PublicRoomsQuery) values() url.Values {
	v := url.Values{}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Since != "" {
		v.Set("since", q.Since)
	}
	if q.IncludeAllNetworks {
		v.Set("include_all_networks", "true")
	}
	if q.ThirdPartyInstanceID != "" {
		v.Set("third_party_instance_id", q.ThirdPartyInstanceID)
	}
	return v
}

// Hierarchy is another server's view of a space and its children.
type Hierarchy struct {
	Room         json.RawMessage   `json:"room"`
	Children     []json.RawMessage `json:"children"`
	Inaccessible []string          `json:"inaccessible_children"`
}

// GetSpaceHierarchy asks for a space's summary and its children.
func (c *Client) GetSpaceHierarchy(ctx context.Context, server matrix.ServerName, room matrix.RoomID, suggestedOnly bool) (*Hierarchy, error) {
	in := call{
		operation: "getSpaceHierarchy", server: server, method: http.MethodGet, budget: listBudget,
		path: path(v1+"/hierarchy", string(room)), query: url.Values{"suggested_only": {strconv.FormatBool(suggestedOnly)}},
	}
	raw, err := c.raw(ctx, in)
	if err != nil {
		return nil, err
	}
	answer := &Hierarchy{}
	if err := matrix.Decode(raw, answer); err != nil || answer.Room == nil {
		return nil, unusable(in, errors.New("it has no room"))
	}
	return answer, nil
}

// GetUserDevices asks for the devices of a user of that server; the answer is package keys' to read.
func (c *Client) GetUserDevices(ctx context.Context, user matrix.UserID) (json.RawMessage, error) {
	return c.raw(ctx, call{
		operation: "getUserDevices", server: user.Server(), method: http.MethodGet, budget: listBudget,
		path: path(v1+"/user/devices", string(user)),
	})
}

// QueryUserEncryptionKeys asks for device keys of users of that server; body and answer are as in the client API.
func (c *Client) QueryUserEncryptionKeys(ctx context.Context, server matrix.ServerName, body []byte) (json.RawMessage, error) {
	return c.raw(ctx, call{
		operation: "queryUserEncryptionKeys", server: server, method: http.MethodPost, body: body, budget: listBudget,
		path: v1 + "/user/keys/query",
	})
}

// ClaimUserEncryptionKeys claims one-time keys of users of that server; body and answer are as in the client API. It
// has an effect at the other server: what it answers must not get lost.
func (c *Client) ClaimUserEncryptionKeys(ctx context.Context, server matrix.ServerName, body []byte) (json.RawMessage, error) {
	return c.raw(ctx, call{
		operation: "claimUserEncryptionKeys", server: server, method: http.MethodPost, body: body, budget: listBudget,
		path: v1 + "/user/keys/claim", once: true,
	})
}

// ExchangeOpenIDToken asks whose OpenID token it is; only users of that server count.
func (c *Client) ExchangeOpenIDToken(ctx context.Context, server matrix.ServerName, token string) (matrix.UserID, error) {
	in := call{
		operation: "exchangeOpenIdToken", server: server, method: http.MethodGet, unsigned: true, budget: queryBudget,
		path: v1 + "/openid/userinfo", query: url.Values{"access_token": {token}},
	}
	var answer struct {
		Sub string `json:"sub"`
	}
	if err := c.json(ctx, in, &answer); err != nil {
		return "", err
	}
	user, err := matrix.ParseUserID(answer.Sub)
	if err == nil && user.Server() != server {
		err = errors.New("the user is of another server")
	}
	if err != nil {
		return "", unusable(in, err)
	}
	return user, nil
}
