package clientapi

import (
	"encoding/base64"
	"net/http"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/limits"
)

// markTime is how long a browser keeps its mark: the longest that browsers keep a cookie.
const markTime = 400 * 24 * time.Hour

// guessable says whether somebody who is not logged in shows a password, a code or a link on a route.
func (r Route) guessable() bool {
	return r.Auth == NoAuth && (r.Limit == LimitLogin || r.Limit == LimitRegister)
}

// noteCaller notes with the request who makes it, as far as guesses are counted by that, and has browsers keep a mark by which
// they are known again once somebody has logged in (accounts.Caller).
//
// The mark is no credential: with it somebody has guesses of their own, and no more. So it does no harm that browsers send
// it by themselves. Other sites do not get it sent nor set, and programs that keep no cookies do without.
func (s *Server) noteCaller(r *Request) {
	if !r.route.guessable() {
		return
	}
	caller := accounts.Caller{Block: limits.Block(s.address(r.Request()))}
	if c, err := r.Request().Cookie(s.markName()); err == nil && isMark(c.Value) {
		caller.Mark = c.Value
	} else if r.route.Method == post && s.fromHere(r.Request()) {
		caller.Mark = accounts.NewMark()
		http.SetCookie(r.Response(), &http.Cookie{
			Name: s.markName(), Value: caller.Mark, Path: "/", MaxAge: int(markTime / time.Second), Secure: s.secure(), HttpOnly: true,
			SameSite: http.SameSiteLaxMode, // also where a page of the identity provider leads back to us
		})
	}
	r.mark = caller.Mark
	r.SetRequest(r.Request().WithContext(accounts.WithCaller(r.Ctx(), caller)))
}

// markName is the name of the cookie; for its form see cookieName.
func (s *Server) markName() string {
	if s.secure() {
		return "__Host-conclave-known"
	}
	return "conclave-known"
}

func isMark(text string) bool {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	return err == nil && len(raw) == accounts.MarkBytes
}
