package clientapi_test

import (
	"fmt"
	"slices"
	"testing"

	"conclave/internal/testserver"
)

// TestQuarantine withdraws contents on the server that has them, and on one that has copies.
func TestQuarantine(t *testing.T) {
	testserver.EachAtOnce(t, func(t *testing.T, engine string) {
		a, b := testserver.Pair(t, testserver.Options{Engine: engine})
		alice, bob, boss := a.Register("alice"), b.Register("bob"), b.RegisterAdmin("boss")
		missing := func(what string, u *testserver.User, place string) {
			t.Helper()
			for _, path := range []string{download + place, download + place + "/name.txt", "/_matrix/client/v1/media/thumbnail/" + place + "?width=10&height=10"} {
				if got := request(t, u, "GET", path, nil); got.Status != 404 {
					t.Errorf("%s: %s was answered %d %s", what, path, got.Status, got.Raw)
				}
			}
		}
		there := func(what string, u *testserver.User, place, content string) {
			t.Helper()
			if got := request(t, u, "GET", download+place, nil); got.Status != 200 || string(got.Raw) != content {
				t.Errorf("%s: %d %s", what, got.Status, got.Raw)
			}
		}
		// A copy of another server's content.
		copied := upload(t, alice, "text/plain", "a.txt", []byte("copied"))
		there("before", bob, copied, "copied")
		for _, u := range []*testserver.User{bob, b.Nobody()} {
			for _, path := range []string{"quarantine/", "unquarantine/"} {
				if got := request(t, u, "POST", admin+"media/"+path+copied, nil); got.Status != 403 && got.Status != 401 {
					t.Errorf("%s by somebody else: %d", path, got.Status)
				}
			}
		}
		boss.Must("POST", admin+"media/quarantine/"+copied, nil)
		missing("a copy", bob, copied)
		boss.Must("DELETE", admin+"media/"+copied, nil)
		missing("a copy that is gone", bob, copied)
		there("where it comes from", alice, copied, "copied")
		boss.Must("POST", admin+"media/unquarantine/"+copied, nil)
		there("fetched again", bob, copied, "copied")
		// One that was never here is never fetched.
		strange := upload(t, alice, "text/plain", "a.txt", []byte("strange"))
		boss.Must("POST", admin+"media/quarantine/"+strange, nil)
		missing("what is not here", bob, strange)
		// A content of the server's own, asked for by the other.
		own := upload(t, bob, "text/plain", "b.txt", []byte("own"))
		boss.Must("POST", admin+"media/quarantine/"+own, nil)
		missing("at home", bob, own)
		missing("by federation", alice, own)
		boss.Refused(404, "M_NOT_FOUND", "POST", admin+"media/quarantine/"+string(b.Name)+"/x.y", nil)
		testMediaOfUser(t, bob, boss, own, missing)
		testMediaOfRoom(t, alice, bob, boss, missing, there)
	})
}

func testMediaOfUser(t *testing.T, bob, boss *testserver.User, own string, missing func(string, *testserver.User, string)) {
	places := []string{own}
	for i := range 4 {
		places = append(places, upload(t, bob, "text/plain", fmt.Sprintf("%d.txt", i), make([]byte, i+1)))
	}
	path := admin + "users/" + bob.ID + "/media"
	var seen []string
	for from := "0"; from != ""; {
		page := boss.Must("GET", path+"?limit=2&dir=f&from="+from, nil).Body
		if page["total"] != float64(5) {
			t.Fatalf("total %v", page["total"])
		}
		for _, c := range testserver.Events(page["media"]) {
			seen = append(seen, fmt.Sprintf("%s/%v", bob.Server.Name, c["media_id"]))
			by, _ := c["quarantined_by"].(string)
			if want := map[bool]string{true: boss.ID}[seen[len(seen)-1] == own]; by != want {
				t.Errorf("%v is withdrawn by %q, want %q", c, by, want)
			}
		}
		from = ""
		if next, ok := page["next_token"]; ok {
			from = fmt.Sprint(next)
		}
	}
	if len(seen) != 5 || seen[0] != own {
		t.Errorf("the pages have %q, want %q", seen, places)
	}
	newest := testserver.Events(boss.Must("GET", path+"?limit=1", nil).Body["media"])
	if len(newest) != 1 || newest[0]["upload_name"] == "b.txt" {
		t.Errorf("the newest is %v", newest)
	}
	bob.Refused(403, "M_FORBIDDEN", "GET", path, nil)
	boss.Refused(404, "M_NOT_FOUND", "GET", admin+"users/@nobody:"+string(bob.Server.Name)+"/media", nil)
	boss.Refused(400, "M_INVALID_PARAM", "GET", path+"?from=-1", nil)
	boss.Refused(400, "M_INVALID_PARAM", "GET", path+"?order_by=media_length", nil)
	if n := boss.Must("POST", admin+"user/"+bob.ID+"/media/quarantine", nil).Body["num_quarantined"]; n != float64(4) {
		t.Errorf("%v more were withdrawn", n)
	}
	missing("all of a user", bob, places[4])
	bob.Refused(403, "M_FORBIDDEN", "DELETE", admin+"media/"+places[1], nil)
	boss.Must("DELETE", admin+"media/"+places[1], nil)
	boss.Refused(404, "M_NOT_FOUND", "DELETE", admin+"media/"+places[1], nil)
	if page := boss.Must("GET", path, nil).Body; page["total"] != float64(4) {
		t.Errorf("after one was deleted: %v", page["total"])
	}
}

// testMediaOfRoom withdraws what a room shows, wherever an event has it, and gives it back but for what is withdrawn by
// itself too.
func testMediaOfRoom(t *testing.T, alice, bob, boss *testserver.User, missing func(string, *testserver.User, string), there func(string, *testserver.User, string, string)) {
	file := func(u *testserver.User, text string) string { return upload(t, u, "text/plain", "x.txt", []byte(text)) }
	uri := func(place string) string { return "mxc://" + place }
	picture, small, sealed, edited, strange := file(bob, "picture"), file(bob, "small"), file(bob, "sealed"), file(bob, "edited"), file(alice, "strange")
	face, elsewhere := file(bob, "face"), file(bob, "elsewhere")
	bob.Must("PUT", testserver.Path("profile", bob.ID, "avatar_url"), object{"avatar_url": uri(face)})
	room, other := bob.CreateRoom(object{}), bob.CreateRoom(object{})
	send := func(room string, content object) {
		content["msgtype"], content["body"] = "m.image", "x"
		bob.Must("PUT", testserver.Path("rooms", room, "send", "m.room.message", testserver.Unique("t")), content)
	}
	send(other, object{"url": uri(elsewhere)})
	send(room, object{"url": uri(picture), "info": object{"thumbnail_url": uri(small)}})
	send(room, object{"file": object{"url": uri(sealed)}})
	send(room, object{"url": uri(picture), "m.new_content": object{"url": uri(edited)}})
	send(room, object{"url": "mxc://../..", "info": object{"thumbnail_url": "mxc://" + string(bob.Server.Name)}})
	for i := range 210 { // more than are looked at in one transaction
		send(room, object{"url": uri(picture), "n": i})
	}
	send(room, object{"url": uri(strange)})
	ours := []string{picture, small, sealed, edited}

	path := admin + testserver.Path("room", room, "media")[1:]
	for _, u := range []*testserver.User{bob, bob.Server.Nobody()} {
		for method, end := range map[string]string{"GET": "", "POST": "/quarantine"} {
			if got := request(t, u, method, path+end, nil); got.Status != 403 && got.Status != 401 {
				t.Errorf("%s%s by somebody else: %d", path, end, got.Status)
			}
		}
	}
	boss.Refused(404, "M_NOT_FOUND", "POST", admin+testserver.Path("room", "!nowhere:x.test", "media", "quarantine")[1:], nil)
	listed := boss.Must("GET", path, nil).Body
	var want []any
	for _, place := range ours {
		want = append(want, uri(place))
	}
	local, _ := listed["local"].([]any)
	for _, w := range want {
		if len(local) != 4 || !slices.Contains(local, w) {
			t.Errorf("the room shows %v, want %v", local, want)
		}
	}
	if remote, _ := listed["remote"].([]any); !slices.Equal(remote, []any{uri(strange)}) {
		t.Errorf("of other servers the room shows %v", remote)
	}
	quarantine := func(end, field string, n int) {
		t.Helper()
		if got := boss.Must("POST", path+end, nil).Body[field]; got != float64(n) {
			t.Errorf("%s: %v, want %d", end, got, n)
		}
	}
	quarantine("/quarantine", "num_quarantined", 5)
	quarantine("/quarantine", "num_quarantined", 0)
	for _, place := range append(ours, strange) {
		missing("what a room shows", bob, place)
	}
	there("a user's picture", bob, face, "face")
	there("of another room", bob, elsewhere, "elsewhere")
	page := boss.Must("GET", path+"/quarantine?limit=3", nil).Body
	first := testserver.Events(page["media"])
	if len(first) != 3 || page["total"] != float64(5) || page["next_token"] != float64(3) || first[0]["quarantined_by"] != boss.ID {
		t.Errorf("in quarantine: %v", page)
	}
	boss.Must("POST", admin+"media/quarantine/"+small, nil) // by itself too
	quarantine("/unquarantine", "num_unquarantined", 4)
	there("given back", bob, picture, "picture")
	there("given back", bob, strange, "strange")
	missing("withdrawn by itself", bob, small)
	boss.Must("POST", admin+"media/unquarantine/"+small, nil)
	there("given back by itself", bob, small, "small")
}
