package federation_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// TestSecretsStayInside is threats O06: what a busy server with its most talkative log writes down, shows as metrics and
// answers as errors holds no token, password, key, signature or content.
func TestSecretsStayInside(t *testing.T) {
	proof.Of(t, "O06")
	w := besiege(t, "sqlite", 12, nil)
	secrets := map[string]string{"alice's token": w.alice.Token, "a password": testserver.Password}
	var told strings.Builder // bodies of errors
	try := func(u *testserver.User, method, path string, body any) {
		t.Helper()
		a, err := u.Do(method, path, body)
		if err != nil {
			t.Fatal(err)
		}
		if a.Status >= 400 {
			told.Write(a.Raw)
		}
	}
	room := string(w.room.ID)
	const canary = "canary-8d1f2c"
	secrets["content"] = canary
	w.alice.Say(room, canary)
	w.alice.Send(room, "m.room.encrypted", testserver.JSON{"ciphertext": canary})
	w.message(canary)
	w.send("content", w.message("visible "+canary))
	w.sees("visible " + canary)
	w.p.Send(t, w.us, "to device", nil, [][]byte{edu("m.direct_to_device", object{
		"sender": w.p.User("bob"), "type": "m.room_key", "message_id": "m", "messages": object{w.alice.ID: object{"*": object{"key": canary}}},
	})})
	w.send("broken", w.apart(canary, w.p.BadSignature()), w.apart(canary, peer.Set("depth", canary)))
	usurped := w.room.Make(peer.Spec{Type: "m.room.power_levels", Sender: w.p.User("bob"), StateKey: peer.Key(""), Content: object{"users": object{}, canary: 1}, Apart: true})
	w.send("usurped", usurped)
	last := w.message("last")
	w.send("last", last) // comes behind it
	w.sees("last")
	// Requests that fail, with secrets where they do not belong.
	nobody := w.s.Nobody()
	try(nobody, "GET", "/sync?access_token="+w.alice.Token, nil)
	try(nobody, "POST", "/login", testserver.JSON{"type": "m.login.password", "password": canary, "identifier": testserver.JSON{"type": "m.id.user", "user": "alice"}})
	try(nobody, "POST", "/login", []byte(`{"type":"m.login.password","password":"`+testserver.Password+`",`))
	try(w.alice, "PUT", testserver.Path("rooms", room, "state", "m.room.power_levels", ""), testserver.JSON{"users": canary})
	try(w.alice, "POST", "/keys/upload", testserver.JSON{"device_keys": canary})
	try(w.alice, "GET", "/_matrix/client/v1/media/download/"+string(w.p.Name)+"/none?token="+w.alice.Token, nil)
	try(w.alice, "POST", testserver.Path("join", "!none:"+string(w.p.Name))+"?via="+string(w.p.Name), testserver.JSON{"reason": canary})
	_ = w.alice.Socket(nil)
	// Signed requests of the peer, right and wrong.
	header := w.p.Authorization(w.us.Server, "GET", peer.V1+testserver.Path("state", room), nil)
	_, sig, _ := strings.Cut(header, `sig="`)
	secrets["a request's signature"] = strings.TrimSuffix(sig, `"`)
	for _, h := range []string{header, strings.Replace(header, `key="`, `key="x`, 1), strings.Replace(header, "X-Matrix", "Bearer", 1)} {
		a := w.p.DoWith(t, w.us, "GET", peer.V1+testserver.Path("state", room), nil, http.Header{"Authorization": {h}})
		told.Write(a.Body)
	}
	for _, name := range []string{"signing.key", "secrets.yaml"} {
		text, err := os.ReadFile(filepath.Join(w.s.DataDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(text))
		secrets[name] = fields[len(fields)-1]
	}
	told.Write(nobody.Must("GET", w.s.Admin+"/metrics", nil).Raw)
	w.s.Stop()
	log, err := os.ReadFile(w.s.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "level=DEBUG") {
		t.Error("the log is not at its most talkative")
	}
	for what, secret := range secrets {
		if len(secret) < 10 {
			t.Fatalf("%s is %q", what, secret)
		}
		if strings.Contains(string(log), secret) {
			at := strings.Index(string(log), secret)
			t.Errorf("the log holds %s: …%s", what, log[max(0, at-200):at])
		}
		if strings.Contains(told.String(), secret) {
			t.Errorf("an error or the metrics hold %s", what)
		}
	}
}
