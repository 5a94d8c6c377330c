package clientapi

import (
	"slices"
	"strings"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/push"
)

var serverRoutes = []Route{
	{Method: get, Path: "/_matrix/client/versions", OperationID: "getVersions", Auth: OptionalToken, Limit: Unlimited, Handler: (*Server).getVersions},
	op(get, "/capabilities", "getCapabilities", Token, LimitRead, (*Server).getCapabilities),
	{Method: get, Path: "/.well-known/matrix/client", OperationID: "getWellknown", Auth: NoAuth, Limit: Unlimited, Handler: (*Server).getWellknown},
	{Method: get, Path: "/.well-known/matrix/server", OperationID: "getServerWellknown", Auth: NoAuth, Limit: Unlimited, Handler: (*Server).getServerWellknown},
}

// versions are the spec's versions whose endpoints of this API are served as far as they are built.
var versions = []string{
	"r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14",
	"v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
}

// getVersions is GET /_matrix/client/versions.
func (s *Server) getVersions(*Request) (any, error) {
	return map[string]any{
		"versions": versions,
		"unstable_features": map[string]bool{
			"im.conclave.ws":            true,
			"org.matrix.msc4222":        true, // state_after
			"org.matrix.msc2285.stable": true, // private read receipts
			"org.matrix.msc3814":        true, // dehydrated devices

			"org.matrix.simplified_msc3575": true, // simplified sliding sync (MSC4186)
		},
	}, nil
}

// getCapabilities is GET /capabilities.
func (s *Server) getCapabilities(r *Request) (any, error) {
	available := map[string]string{}
	for _, v := range matrix.RoomVersions() {
		available[v.String()] = "stable"
	}
	yes := map[string]bool{"enabled": true}
	password, err := s.Accounts.HasPassword(r.Ctx(), r.Session.User)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{"enabled": true}
	fixed := s.Config.Profiles.Fixed
	if len(fixed) > 0 {
		fields["disallowed"] = fixed
	}
	capabilities := map[string]any{
		"m.change_password": map[string]bool{"enabled": password},
		"m.room_versions":   map[string]any{"default": matrix.DefaultRoomVersion.String(), "available": available},
		"m.profile_fields":  fields,
		// The two of before v1.16 say of their fields what m.profile_fields says.
		"m.set_displayname": map[string]bool{"enabled": !slices.Contains(fixed, accounts.DisplayName)},
		"m.set_avatar_url":  map[string]bool{"enabled": !slices.Contains(fixed, accounts.AvatarURL)},
		"m.3pid_changes":    map[string]bool{"enabled": s.Accounts.Mails()},
		"m.get_login_token": yes,
		push.KindWebPush:    map[string]any{"enabled": true, "vapid_public_key": s.WebPush.PublicKey()},
		// Leaving keeps the room's history for the user, until the user forgets it.
		"m.forget_forced_upon_leave": map[string]bool{"enabled": false},
	}
	if r.Session.Admin {
		capabilities["m.account_moderation"] = map[string]bool{"suspend": true, "lock": true}
	}
	return map[string]any{"capabilities": capabilities}, nil
}

// getWellknown is GET /.well-known/matrix/client.
func (s *Server) getWellknown(r *Request) (any, error) {
	url := s.Config.PublicURL
	if url == "" {
		return nil, matrix.NotFound("The server's public_url is not set.")
	}
	return map[string]any{"m.homeserver": map[string]string{"base_url": strings.TrimRight(url, "/")}}, nil
}

// getServerWellknown is GET /.well-known/matrix/server: where other servers reach this one, if its name does not say so.
func (s *Server) getServerWellknown(*Request) (any, error) {
	return nil, matrix.NotFound("The server is reached by its name alone.")
}
