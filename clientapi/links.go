package clientapi

import "conclave/internal/accounts"

// Signing in by a device where one is signed in already: the new one begins and polls, the other one looks and decides
// (accounts.BeginLink).
var linkRoutes = []Route{
	{Method: post, Path: signInPath + "/link", OperationID: "im.conclave.link", Auth: NoAuth, Limit: LimitLogin, Handler: (*Server).beginLink},
	{Method: post, Path: signInPath + "/link/poll", OperationID: "im.conclave.link.poll", Auth: NoAuth, Limit: LimitRefresh, Handler: (*Server).pollLink},
	own(post, "/link/look", "link.look", LimitLogin, (*Server).lookAtLink),
	own(post, "/link/allow", "link.allow", LimitLogin, (*Server).allowLink),
	own(post, "/link/refuse", "link.refuse", LimitLogin, (*Server).refuseLink),
}

// beginLink begins on the new device. Both codes are for it: it shows user_code, and url as a QR code, and keeps device_code.
func (s *Server) beginLink(r *Request) (any, error) {
	var body struct {
		Name string `json:"device_display_name"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	g, err := s.Accounts.BeginLink(r.Ctx(), body.Name, s.address(r.Request()))
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"device_code": g.DeviceCode, "user_code": g.UserCode, "url": s.Accounts.LinkURL(g.UserCode),
		"expires_in_ms": g.Lasts.Milliseconds(), "interval_ms": g.Pause.Milliseconds(),
	}, nil
}

// pollLink asks whether the new device was let in. Until somebody has decided it answers how long to wait before the next
// question, then as signIn.
func (s *Server) pollLink(r *Request) (any, error) {
	var body struct {
		DeviceCode string `json:"device_code"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	signIn, pause, err := s.Accounts.PollLink(r.Ctx(), body.DeviceCode)
	if err == nil && signIn == nil {
		return map[string]any{"interval_ms": pause.Milliseconds()}, nil
	}
	return signingIn(signIn, err)
}

// codeBody is a code that somebody has typed or scanned.
type codeBody struct {
	Auth     *accounts.AuthData `json:"auth"`
	UserCode string             `json:"user_code"`
}

// lookAtLink tells what waits with a code.
func (s *Server) lookAtLink(r *Request) (any, error) {
	var body codeBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	l, err := s.Accounts.LookAtLink(r.Ctx(), body.UserCode)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"device_display_name": l.Name, "since_ts": l.Since.UnixMilli()}
	if l.Client != "" {
		answer["client"] = l.Client
	}
	if l.Address != "" {
		answer["address"] = l.Address
	}
	return answer, nil
}

// allowLink lets the device in that waits with a code. It is confirmed each time, with a second factor where there is one.
func (s *Server) allowLink(r *Request) (any, error) {
	var body codeBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	how, err := s.confirmedHow(r, body.Auth)
	if err != nil {
		return nil, err
	}
	return nil, s.Accounts.AllowLink(r.Ctx(), r.Session, how, body.UserCode)
}

// refuseLink says no to it.
func (s *Server) refuseLink(r *Request) (any, error) {
	var body codeBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	return nil, s.Accounts.RefuseLink(r.Ctx(), r.Session, body.UserCode)
}
