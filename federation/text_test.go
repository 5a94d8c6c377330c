package federation

import (
	"net/http"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/peer"
	"conclave/internal/testserver/proof"
)

// TestAddressesAreText is threats F16: what no database can hold is refused where it comes in, however it is signed.
func TestAddressesAreText(t *testing.T) {
	proof.Of(t, "F16")
	dbtest.Each(t, func(t *testing.T, db *store.DB) {
		w := newKeyWorld(t, db)
		_, us := w.startServer(nil)
		p := peer.New(t, w.ca, peer.Options{})
		for uri, status := range map[string]int{
			"/_matrix/test/a%C3%A4/get": 200, "/_matrix/test/a/get?q=%C3%A4": 200,
			"/_matrix/test/a%00/get": 400, "/_matrix/test/a%FF/get": 400, "/_matrix/test/a/get?q=%00": 400, "/_matrix/test/a/get?%ff=1": 400,
		} {
			if got := p.DoWith(t, us, "GET", uri, nil, http.Header{"Authorization": {p.Authorization(us.Server, "GET", uri, nil)}}); got.Status != status {
				t.Errorf("%s: %d %s, want %d", uri, got.Status, got.Body, status)
			}
		}
	})
}
