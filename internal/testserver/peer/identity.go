package peer

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"conclave/internal/matrix"
)

// identityV2 is the root of the Identity Service API.
const identityV2 = "/_matrix/identity/v2"

// IdentityServer is an identity service double: it knows to whom addresses are bound, keeps invitations to those that are
// not, and tells a user's server of them once they are. Handle makes it lie; what it was asked stands in Calls.
type IdentityServer struct {
	*Peer
	Token string // by which it lets its users in
	Keys  [2]ed25519.PrivateKey

	mu      sync.Mutex
	pepper  string
	bound   map[string]string // user by hash
	stored  []map[string]any
	revoked map[string]bool // public keys, as it writes them
}

// NewIdentityServer starts an IdentityServer that ends with the test.
func NewIdentityServer(t testing.TB, ca *CA) *IdentityServer {
	t.Helper()
	s := &IdentityServer{Peer: New(t, ca, Options{}), Token: "let-me-in", pepper: "matrixrocks", bound: map[string]string{}, revoked: map[string]bool{}}
	for i := range s.Keys {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Keys[i] = key
	}
	s.authorised("GET", "/hash_details", func(*Call) Reply {
		return Reply{Body: map[string]any{"lookup_pepper": s.pepper, "algorithms": []string{"none", "sha256"}}}
	})
	s.authorised("POST", "/lookup", s.lookup)
	s.authorised("POST", "/store-invite", s.storeInvite)
	for _, path := range []string{"/pubkey/isvalid", "/pubkey/ephemeral/isvalid"} {
		s.Handle("GET", identityV2+path, func(c *Call) Reply {
			s.mu.Lock()
			defer s.mu.Unlock()
			key := c.Query["public_key"][0]
			return Reply{Body: map[string]any{"valid": (key == s.Public(0) || key == s.Public(1)) && !s.revoked[key]}}
		})
	}
	return s
}

// Public is the text of its long-term key (0) in the standard alphabet of base64, or of its ephemeral key (1) in the
// URL-safe one.
func (s *IdentityServer) Public(n int) string {
	key := s.Keys[n].Public().(ed25519.PublicKey)
	if n == 1 {
		return base64.RawURLEncoding.EncodeToString(key)
	}
	return unpadded(key)
}

// Revoke makes its keys bad.
func (s *IdentityServer) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked[s.Public(0)], s.revoked[s.Public(1)] = true, true
}

// URL is an address of its API.
func (s *IdentityServer) URL(path string) string {
	return "https://" + string(s.Name) + identityV2 + path
}

func (s *IdentityServer) authorised(method, path string, answer func(*Call) Reply) {
	s.Handle(method, identityV2+path, func(c *Call) Reply {
		if c.Header.Get("Authorization") != "Bearer "+s.Token {
			return Refuse(http.StatusUnauthorized, "M_UNAUTHORIZED")
		}
		return answer(c)
	})
}

// hash is how an address is asked for, which is in its canonical form.
func (s *IdentityServer) hash(medium, address string) string {
	sum := sha256.Sum256([]byte(address + " " + medium + " " + s.pepper))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Knows binds an address to a user, without telling anybody.
func (s *IdentityServer) Knows(medium, address, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound[s.hash(medium, address)] = user
}

func (s *IdentityServer) lookup(c *Call) Reply {
	var q struct {
		Algorithm string   `json:"algorithm"`
		Pepper    string   `json:"pepper"`
		Addresses []string `json:"addresses"`
	}
	if json.Unmarshal(c.Body, &q) != nil || q.Algorithm != "sha256" {
		return Refuse(http.StatusBadRequest, "M_INVALID_PARAM")
	}
	if q.Pepper != s.pepper {
		return Refuse(http.StatusBadRequest, "M_INVALID_PEPPER")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]string{}
	for _, hash := range q.Addresses {
		if user, ok := s.bound[hash]; ok {
			found[hash] = user
		}
	}
	return Reply{Body: map[string]any{"mappings": found}}
}

// Offer is what it answers to an invitation that it is to keep.
func (s *IdentityServer) Offer(token string) map[string]any {
	return map[string]any{"token": token, "display_name": "b…@e…", "public_keys": []any{
		map[string]any{"public_key": s.Public(0), "key_validity_url": s.URL("/pubkey/isvalid")},
		map[string]any{"public_key": s.Public(1), "key_validity_url": s.URL("/pubkey/ephemeral/isvalid")},
	}}
}

func (s *IdentityServer) storeInvite(c *Call) Reply {
	invite := map[string]any{}
	if json.Unmarshal(c.Body, &invite) != nil || invite["medium"] != "email" {
		return Refuse(http.StatusBadRequest, "M_UNRECOGNIZED")
	}
	token := fmt.Sprintf("token%d", s.next())
	s.mu.Lock()
	defer s.mu.Unlock()
	invite["token"] = token
	s.stored = append(s.stored, invite)
	return Reply{Body: s.Offer(token)}
}

// Signed is what shows that a user has the address of a token, signed with one of its keys.
func (s *IdentityServer) Signed(token, user string, key int) map[string]any {
	signed := map[string]any{"mxid": user, "token": token}
	s.Sign(signed, key)
	return signed
}

// Sign signs an object with one of its keys.
func (s *IdentityServer) Sign(object map[string]any, key int) {
	delete(object, "signatures")
	Sign(object, s.Name, matrix.KeyID(fmt.Sprint("ed25519:", key)), s.Keys[key])
}

// Binding is the notice that an address was bound, with the invitations that were kept for it.
func (s *IdentityServer) Binding(address, user string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	invites := []any{}
	for _, kept := range s.stored {
		if kept["address"] == address {
			token, _ := kept["token"].(string)
			invites = append(invites, map[string]any{
				"medium": kept["medium"], "address": address, "mxid": user, "room_id": kept["room_id"], "sender": kept["sender"],
				"signed": s.Signed(token, user, 1),
			})
		}
	}
	return map[string]any{"medium": "email", "address": address, "mxid": user, "invites": invites}
}

// Tell sends a notice to a user's server, as identity servers do: without a signature that it could check.
func (s *IdentityServer) Tell(t testing.TB, to Target, notice map[string]any) Answer {
	t.Helper()
	return s.DoWith(t, to, "PUT", V1+"/3pid/onbind", encode(notice), http.Header{"Content-Type": {"application/json"}})
}
