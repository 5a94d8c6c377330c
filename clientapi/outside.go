package clientapi

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // relays compute it so (TURN REST API)
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"conclave/internal/matrix"
)

// What the server tells of others beside itself: the relay for calls, and the people who run it.
var outsideRoutes = []Route{
	op(get, "/voip/turnServer", "getTurnServer", Token, LimitRead, (*Server).getTurnServer),
	{Method: get, Path: "/.well-known/matrix/support", OperationID: "getWellknownSupport", Auth: NoAuth, Limit: Unlimited, Handler: (*Server).getWellknownSupport},
}

// turnAnswer is what a client needs for a relay (client-server API, "Voice over IP").
type turnAnswer struct {
	Username string   `json:"username"`
	Password string   `json:"password"`
	URIs     []string `json:"uris"`
	TTL      int      `json:"ttl"` // seconds
}

// getTurnServer is GET /voip/turnServer: credentials that end by themselves, by the scheme that relays share with whoever
// knows their secret (draft-uberti-behave-turn-rest). Without a relay in the configuration the list is empty.
func (s *Server) getTurnServer(r *Request) (any, error) {
	conf := s.Config.TURN
	if len(conf.URIs) == 0 {
		return turnAnswer{URIs: []string{}, TTL: conf.TTL}, nil
	}
	expires := time.Now().Add(time.Duration(conf.TTL) * time.Second).Unix()
	username := fmt.Sprintf("%d:%s", expires, r.Session.UserID)
	mac := hmac.New(sha1.New, []byte(conf.SharedSecret.Reveal()))
	mac.Write([]byte(username))
	return turnAnswer{username, base64.StdEncoding.EncodeToString(mac.Sum(nil)), conf.URIs, conf.TTL}, nil
}

// contact is a way to reach the people who run the server.
type contact struct {
	Role     string `json:"role"`
	MatrixID string `json:"matrix_id,omitempty"`
	Email    string `json:"email_address,omitempty"`
}

// getWellknownSupport is GET /.well-known/matrix/support.
func (s *Server) getWellknownSupport(*Request) (any, error) {
	conf := s.Config.Support
	var contacts []contact
	for _, role := range []struct {
		name string
		list []string
	}{{"m.role.admin", conf.Admin}, {"m.role.security", conf.Security}} {
		for _, address := range role.list {
			c := contact{Role: role.name, Email: address}
			if strings.HasPrefix(address, "@") {
				c.MatrixID, c.Email = address, ""
			}
			contacts = append(contacts, c)
		}
	}
	answer := map[string]any{}
	if contacts != nil {
		answer["contacts"] = contacts
	}
	if conf.Page != "" {
		answer["support_page"] = conf.Page
	}
	if len(answer) == 0 {
		return nil, matrix.NotFound("The administrator of this server has named no contacts.")
	}
	return answer, nil
}
