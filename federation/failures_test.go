package federation

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"conclave/internal/testserver/peer"
)

// TestSilentServersAreNotAskedAgainAndAgain: who waits for an answer of a server that was silent a moment ago is told at
// once, for longer each time; other kinds of questions, what is refused at once, and what somebody means to do are asked;
// a word of the server ends it.
func TestSilentServersAreNotAskedAgainAndAgain(t *testing.T) {
	ca, clk := peer.NewCA(t), newClock()
	c := testClient(t, ca, func(o *ClientOptions) { o.Clock = clk.now })
	p := trusting(t, ca, c, peer.Options{})
	reply, takes := peer.Reply{}, time.Duration(0)
	p.Handle("GET", v1+"/query/profile", func(*peer.Call) peer.Reply {
		clk.add(takes)
		return reply
	})
	p.Handle("GET", v1+"/make_join/{room}/{user}", func(*peer.Call) peer.Reply {
		clk.add(time.Minute)
		return peer.Refuse(http.StatusBadGateway, "")
	})
	asked := func(want bool, what string) {
		t.Helper()
		before := len(p.Calls(v1 + "/query/profile"))
		_, err := c.QueryProfile(t.Context(), p.User("u"), "")
		var silent *silentError
		if got := len(p.Calls(v1+"/query/profile")) > before; got != want || got == errors.As(err, &silent) {
			t.Errorf("%s: asked: %t, %v", what, got, err)
		}
		if remote := (*Error)(nil); !want && (!errors.As(err, &remote) || remote.ForClient().Status != http.StatusBadGateway) {
			t.Errorf("%s: %v", what, err)
		}
	}
	gone := peer.Reply{Status: http.StatusGatewayTimeout, Body: []byte("<html>")}

	reply, takes = gone, time.Second
	asked(true, "a first failure")
	asked(true, "after one that took no time")
	takes = time.Minute
	asked(true, "the last before the silence")
	asked(false, "after it")
	if _, err := c.GetUserDevices(t.Context(), p.User("u")); errors.As(err, new(*silentError)) {
		t.Error("keys are not asked for because profiles are silent")
	}
	for range 2 {
		if _, err := c.MakeJoin(t.Context(), p.Name, "!r:x.test", p.User("u"), nil); errors.As(err, new(*silentError)) {
			t.Error("a join is not tried")
		}
	}
	clk.add(firstRepose)
	asked(true, "after the first wait")
	clk.add(firstRepose + time.Second)
	asked(false, "before the end of the second")
	clk.add(firstRepose)
	asked(true, "after the second wait")
	c.Alive(p.Name)
	asked(true, "after a word of the server")
	c.Alive("other.test")
	asked(false, "after a word of another server")
	c.Alive(p.Name)

	for _, answer := range []peer.Reply{{Body: map[string]any{}}, peer.Refuse(http.StatusNotFound, "M_NOT_FOUND"), peer.Refuse(http.StatusGatewayTimeout, "M_NOT_YET_UPLOADED")} {
		reply = answer
		asked(true, "an answer that took long")
		asked(true, "after it")
	}
	reply, takes = peer.Reply{Status: http.StatusTooManyRequests, Body: map[string]any{"errcode": "M_LIMIT_EXCEEDED"}, Header: map[string]string{"Retry-After": "60"}}, 0
	asked(true, "the one too many")
	clk.add(59 * time.Second)
	asked(false, "within the time that was asked for")
	clk.add(2 * time.Second)
	reply = peer.Reply{Body: map[string]any{}}
	asked(true, "after it")
	asked(true, "after an answer")
}
