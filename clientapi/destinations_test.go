package clientapi

import (
	"net/http"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	waiting "conclave/internal/testserver/wait"
)

// TestDestinations: an administrator sees how other servers are doing, and can have one tried again.
func TestDestinations(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		ca := peer.NewCA(t)
		a := testserver.Start(t, testserver.Options{Engine: engine, CA: ca})
		b := testserver.Start(t, testserver.Options{Engine: engine, CA: ca})
		root, alice, bob := a.RegisterAdmin("root"), a.Register("alice"), b.Register("bob")
		room := alice.CreateRoom(testserver.JSON{"preset": "public_chat"})
		bob.Join(room, string(a.Name))
		alice.Say(room, "one")
		path := destinationsPath + "/" + string(b.Name)
		status := func() testserver.JSON {
			a, err := root.Do("GET", path, nil)
			if err != nil || a.Status == http.StatusNotFound { // nothing was sent to it yet
				return testserver.JSON{}
			}
			return a.Body
		}
		waiting.Until(t, "the queue to be empty", func() bool {
			d := status()
			return d["queue_length"] == 0.0 && d["last_success_ts"] != nil && d["reachable"] == true && d["last_error"] == nil
		})

		b.Kill()
		for range 3 {
			alice.Say(room, "waits")
		}
		alice.Must("PUT", testserver.Path("sendToDevice", "m.test", testserver.Unique("txn")), testserver.JSON{"messages": testserver.JSON{bob.ID: testserver.JSON{"*": testserver.JSON{}}}})
		waiting.Until(t, "the failure to be seen", func() bool {
			d := status()
			text, _ := d["last_error"].(string)
			return d["reachable"] == false && text != "" && d["failure_ts"] != nil && d["retry_at_ts"] != nil &&
				d["queue_length"] == 3.0 && d["queue_more"] == false && d["to_device_queue_length"] == 1.0
		})

		list := root.Must("GET", destinationsPath+"?destination="+strings.ToUpper("localhost")+"&order_by=failure_ts&dir=b&limit=1", nil).Body
		found := list["destinations"].([]any)
		if list["total"] != 1.0 || len(found) != 1 || found[0].(testserver.JSON)["destination"] != string(b.Name) || list["next_token"] != nil {
			t.Errorf("the list is %v", list)
		}
		if none := root.Must("GET", destinationsPath+"?destination=%25", nil).Body; none["total"] != 0.0 {
			t.Errorf("%% is taken as a pattern: %v", none)
		}
		shared := root.Must("GET", path+"/rooms", nil).Body["rooms"].([]any)
		if len(shared) != 1 || shared[0].(testserver.JSON)["room_id"] != room || shared[0].(testserver.JSON)["users"] != 1.0 {
			t.Errorf("shared rooms are %v", shared)
		}

		b.Start()
		root.Must("POST", path+"/reset_connection", testserver.JSON{})
		waiting.Until(t, "what waited to arrive", func() bool {
			d := status()
			return d["reachable"] == true && d["queue_length"] == 0.0 && d["to_device_queue_length"] == 0.0
		})

		for _, query := range []string{"?order_by=nothing", "?limit=0", "?from=-1"} {
			root.Refused(http.StatusBadRequest, "M_INVALID_PARAM", "GET", destinationsPath+query, nil)
		}
		root.Refused(http.StatusNotFound, "M_NOT_FOUND", "GET", destinationsPath+"/nowhere.test", nil)
		alice.Refused(http.StatusForbidden, "M_FORBIDDEN", "GET", destinationsPath, nil)
	})
}
