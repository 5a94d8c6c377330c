package clientapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"conclave/internal/testserver"
	"conclave/internal/testserver/wait"
)

// unread opens a socket that takes little from the network before somebody reads it.
func unread(t *testing.T, u *testserver.User) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"m.json"}, NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			err = tcp.SetReadBuffer(128 << 10)
		}
		return conn, err
	}}
	conn, res, err := dialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(u.Server.URL, "http")+"/_matrix/client/unstable/im.conclave.ws/sync?filter="+
		url.QueryEscape(`{"room":{"timeline":{"limit":1}}}`), http.Header{"Authorization": {"Bearer " + u.Token}})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// heap is how much memory a server needs, in bytes, after it has collected its garbage.
func heap(t *testing.T, s *testserver.Server) (n int) {
	t.Helper()
	profile := s.Nobody().Must("GET", s.Admin+"/debug/pprof/heap?gc=1&debug=1", nil).Raw
	_, rest, _ := bytes.Cut(profile, []byte("# HeapInuse = "))
	if _, err := fmt.Sscan(string(rest), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSlowSockets lets many clients stop reading while a room talks. How the socket writes does not depend on the
// database.
func TestSlowSockets(t *testing.T) {
	t.Parallel() // it mostly waits
	s := testserver.Start(t, testserver.Options{})
	alice, bob, room := together(t, s)
	since := token(bob.Sync("", 0))
	fast := bob.Socket(nil)
	frames(t, fast, "the first frame", func(object) bool { return true })
	var slow []*websocket.Conn
	for range 10 {
		slow = append(slow, unread(t, bob))
	}
	before := heap(t, s)
	const messages = 100
	text := strings.Repeat("x", 60_000)
	longest := time.Duration(0)
	for i := range messages {
		began := time.Now()
		id := alice.Say(room, fmt.Sprint(i, text))
		frames(t, fast, "a message", func(f object) bool { return testserver.Has(testserver.Timeline(f, room), id) })
		longest = max(longest, time.Since(began))
	}
	// 10 clients times 6 MB: what waits for them is not kept for each.
	if grown := heap(t, s) - before; grown > 30<<20 {
		t.Errorf("%d clients that do not read cost %d MiB", len(slow), grown>>20)
	}
	if longest > 10*time.Second {
		t.Errorf("a message came to a client that reads after %v", longest)
	}
	t.Logf("beside %d clients that do not read the slowest message took %v", len(slow), longest)

	// Once the server counts one as not reading, it goes on no further than the frame that has begun.
	wait.Until(t, "the sockets to count as too slow", func() bool {
		log, err := os.ReadFile(s.LogFile())
		return err == nil && bytes.Count(log, []byte("does not read")) == len(slow)
	})
	for i, conn := range slow {
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		var err error
		sent := 0
		for err == nil {
			var frame []byte
			_, frame, err = conn.ReadMessage()
			sent += len(frame)
		}
		if sent > 2<<20 { // what the kernel holds on both sides, and the frame that had begun
			t.Errorf("a client that did not read was sent %d bytes", sent)
		}
		var closed *websocket.CloseError
		if !errors.As(err, &closed) || closed.Code != 4008 {
			t.Errorf("socket %d ended with %v", i, err)
		}
	}
	// It comes back with what it had, and misses nothing.
	body := bob.Sync(since, 0, "filter", `{"room":{"timeline":{"limit":200}}}`)
	if n := len(testserver.Timeline(body, room)); n != messages {
		t.Errorf("%d messages since then, want %d", n, messages)
	}
}
