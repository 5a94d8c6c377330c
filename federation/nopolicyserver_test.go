package federation_test

import (
	"testing"

	"conclave/internal/testserver"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// TestWeAreNoPolicyServer shows that whoever takes this server for a policy server is told in the words of the
// specification that it is none.
func TestWeAreNoPolicyServer(t *testing.T) {
	const sign, found = "/_matrix/policy/v1/sign", "/.well-known/matrix/policy_server"
	s := testserver.Start(t, testserver.Options{})
	p := peer.New(t, s.CA, peer.Options{})
	us := peer.Target{Server: s.Name, URL: "https://" + string(s.Name)}
	for _, a := range []peer.Answer{p.Do(t, us, "POST", sign, []byte(`{"type":"m.room.message"}`)), p.Do(t, us, "GET", found, nil)} {
		if a.Status != 404 || a.Code() != "M_UNRECOGNIZED" {
			t.Errorf("answered %d %s", a.Status, a.Body)
		}
	}
	s.Nobody().Refused(404, "M_UNRECOGNIZED", "GET", found, nil)
	proof.Refused(t, "POST", sign)
	proof.Refused(t, "GET", found)
	proof.Of(t, "PS-05")
}
