package authrules

import (
	"crypto/ed25519"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"conclave/internal/matrix"
)

// maxVerifications bounds what is tried at one invitation: verifying costs more than all else here.
const maxVerifications = 50

// OfferKey is a key of an m.room.third_party_invite: who signs with it turns the offer into an invitation of a user.
type OfferKey struct {
	Text        string // as the event has it, in either alphabet of base64
	ValidityURL string // where one is told whether the key is still good, "" where the event does not say
}

// Signers are the keys of an offer (the content of an m.room.third_party_invite) that made a signature on the signed
// part of an invitation, at most as many as are asked for.
func Signers(signed, offer []byte, most int) (found []OfferKey) {
	var signatures map[string]map[string]string
	raw, ok := matrix.Get(signed, "signatures")
	if !ok || matrix.Decode(raw, &signatures) != nil {
		return nil
	}
	keys := offerKeys(offer)
	tried := 0
	for _, name := range slices.Sorted(maps.Keys(signatures)) { // in order, so that what is tried is the same everywhere
		for _, id := range slices.Sorted(maps.Keys(signatures[name])) {
			for _, key := range keys {
				if tried++; tried > maxVerifications || len(found) == most {
					return found
				}
				public, err := decodeKey(key.Text)
				if err != nil || len(public) != ed25519.PublicKeySize || slices.Contains(found, key) {
					continue
				}
				if matrix.VerifyJSON(signed, name, matrix.KeyID(id), public) == nil {
					found = append(found, key)
				}
			}
		}
	}
	return found
}

// offerKeys are the keys that an offer lists, none if it cannot be read.
func offerKeys(offer []byte) []OfferKey {
	type key struct {
		Text string          `json:"public_key"`
		URL  json.RawMessage `json:"key_validity_url"` // whatever it is: the rules do not ask
	}
	var first key
	var more struct {
		Keys []key `json:"public_keys"`
	}
	if matrix.Decode(offer, &first) != nil || matrix.Decode(offer, &more) != nil {
		return nil
	}
	keys := make([]OfferKey, 0, 1+len(more.Keys))
	for _, k := range append([]key{first}, more.Keys...) {
		var url string
		_ = json.Unmarshal(k.URL, &url) // "" unless it is text
		keys = append(keys, OfferKey{k.Text, url})
	}
	return keys
}

// decodeKey reads a public key, which identity servers write in the standard or in the URL-safe alphabet
// (client-server API, m.room.third_party_invite).
func decodeKey(text string) ([]byte, error) {
	if strings.ContainsAny(text, "-_") {
		return matrix.DecodeURLBase64(text)
	}
	return matrix.DecodeBase64(text)
}
