package matrix

import (
	"crypto/ed25519"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"conclave/internal/testserver/proof"
)

// vectors is the spec's published test data, with what was computed from it.
type vectors struct {
	Key struct {
		Seed    string `json:"seed_unpadded_base64"`
		Derived struct {
			Public string `json:"public_key_unpadded_base64"`
		} `json:"derived"`
	} `json:"signing_key"`
	Base64 []struct {
		Input   string `json:"input"`
		Encoded string `json:"unpadded_base64"`
	} `json:"unpadded_base64"`
	Canonical []struct {
		Input     string `json:"input"`
		Canonical string `json:"canonical"`
	} `json:"canonical_json"`
	Signing []struct {
		Name   string          `json:"name"`
		Input  json.RawMessage `json:"input"`
		Signed json.RawMessage `json:"signed"`
	} `json:"json_signing"`
	Events []struct {
		Name    string            `json:"name"`
		Input   json.RawMessage   `json:"input"`
		Signed  json.RawMessage   `json:"signed"`
		Derived map[string]string `json:"derived"`
	} `json:"event_signing"`
	Grammar struct {
		Servers  []string `json:"server_names_valid"`
		Versions []string `json:"room_versions_valid"`
		Levels   []struct {
			Input string `json:"input"`
			Value int64  `json:"value"`
		} `json:"power_level_strings_room_v1_to_v9"`
		Floats []struct {
			Input string `json:"input"`
			Value int64  `json:"value"`
		} `json:"power_level_floats_room_v1_to_v5"`
	} `json:"grammar_and_matching"`
	Derived []json.RawMessage `json:"derived_only"`
}

func readVectors(t *testing.T) (*vectors, ed25519.PrivateKey) {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	v := &vectors{}
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
	seed, err := DecodeBase64(v.Key.Seed)
	if err != nil {
		t.Fatal(err)
	}
	return v, ed25519.NewKeyFromSeed(seed)
}

func TestVectorsBase64(t *testing.T) {
	proof.Of(t, "JS-04")
	v, priv := readVectors(t)
	if got := EncodeBase64(priv.Public().(ed25519.PublicKey)); got != v.Key.Derived.Public {
		t.Errorf("public key %s, want %s", got, v.Key.Derived.Public)
	}
	for _, c := range v.Base64 {
		if got := EncodeBase64([]byte(c.Input)); got != c.Encoded {
			t.Errorf("%q encodes to %s, want %s", c.Input, got, c.Encoded)
		}
		if got, err := DecodeBase64(c.Encoded); err != nil || string(got) != c.Input {
			t.Errorf("%s decodes to %q, %v", c.Encoded, got, err)
		}
		padded := c.Encoded + strings.Repeat("=", (4-len(c.Encoded)%4)%4)
		if got, err := DecodeBase64(padded); err != nil || string(got) != c.Input {
			t.Errorf("%s decodes to %q, %v", padded, got, err)
		}
	}
}

func TestVectorsCanonicalJSON(t *testing.T) {
	proof.Of(t, "JS-01")
	v, _ := readVectors(t)
	for _, c := range v.Canonical {
		if got, err := CanonicalJSON([]byte(c.Input)); err != nil || string(got) != c.Canonical {
			t.Errorf("%s becomes %s, %v; want %s", c.Input, got, err, c.Canonical)
		}
	}
}

func TestVectorsSigning(t *testing.T) {
	proof.Of(t, "SG-01")
	v, priv := readVectors(t)
	for _, c := range v.Signing {
		want, err := CanonicalJSON(c.Signed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := SignJSON(c.Input, "domain", "ed25519:1", priv)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: signed as %s, %v; want %s", c.Name, got, err, want)
		}
		if err := VerifyJSON(c.Signed, "domain", "ed25519:1", priv.Public().(ed25519.PublicKey)); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

// TestVectorsEvents signs the published events as room version 3 and 11 would, from their text alone.
func TestVectorsEvents(t *testing.T) {
	v, priv := readVectors(t)
	for _, c := range v.Events {
		want, err := without(mustCanonical(t, c.Signed), "unsigned")
		if err != nil {
			t.Fatal(err)
		}
		e := &Event{version: 3, json: want}
		if typ, ok := GetString(want, "type"); ok {
			e.typ = typ
		}
		e.content, _ = Get(want, "content")
		if !e.CheckContentHash() {
			t.Errorf("%s: the content hash does not fit", c.Name)
		}
		if got, want := string(e.SigningBytes()), c.Derived["signing_input"]; got != want {
			t.Errorf("%s: signs %s, want %s", c.Name, got, want)
		}
		sig, ok := e.Signature("domain", "ed25519:1")
		if !ok || VerifyBytes(priv.Public().(ed25519.PublicKey), e.SigningBytes(), sig) != nil {
			t.Errorf("%s: the signature does not fit", c.Name)
		}
		for version, name := range map[RoomVersion]string{3: "event_id_v3", 4: "event_id_v4_to_v10", 11: "event_id_v11"} {
			id, given := c.Derived[name]
			if !given {
				continue
			}
			e.version = version
			if err := e.identify(); err != nil || string(e.id) != id {
				t.Errorf("%s: version %s gives ID %s, %v; want %s", c.Name, version, e.id, err, id)
			}
		}
	}
}

func mustCanonical(t *testing.T, raw []byte) []byte {
	t.Helper()
	text, err := CanonicalJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestVectorVersion12 builds the create event of a version 12 room and finds its ID, which names the room.
func TestVectorVersion12(t *testing.T) {
	v, priv := readVectors(t)
	var c struct {
		Name    string          `json:"name"`
		Input   json.RawMessage `json:"input"`
		Derived struct {
			Signed  json.RawMessage `json:"signed"`
			EventID string          `json:"event_id"`
		} `json:"derived"`
	}
	found := false
	for _, raw := range v.Derived {
		if err := json.Unmarshal(raw, &c); err != nil {
			t.Fatal(err)
		}
		if found = c.Name == "room_version_12_create_event"; found {
			break
		}
	}
	if !found {
		t.Fatal("the vector is not there")
	}
	content, _ := Get(mustCanonical(t, c.Input), "content")
	key := ""
	tmpl := Template{Sender: "@a:domain", Type: "m.room.create", StateKey: &key, Content: content, Depth: 1, OriginServerTS: 1_000_000}
	e, err := tmpl.Build(12, "domain", "ed25519:1", priv)
	if err != nil {
		t.Fatal(err)
	}
	if want := mustCanonical(t, c.Derived.Signed); string(e.JSON()) != string(want) {
		t.Errorf("built %s, want %s", e.JSON(), want)
	}
	if string(e.ID()) != c.Derived.EventID || string(e.RoomID()) != "!"+c.Derived.EventID[1:] {
		t.Errorf("ID %s in room %s, want %s", e.ID(), e.RoomID(), c.Derived.EventID)
	}
	again, err := ParseEvent(e.JSON(), 12)
	if err != nil || again.ID() != e.ID() || again.RoomID() != e.RoomID() {
		t.Errorf("read back as %v, %v", again, err)
	}
}

func TestVectorsGrammar(t *testing.T) {
	v, _ := readVectors(t)
	for _, name := range v.Grammar.Servers {
		if _, err := ParseServerName(name); err != nil {
			t.Error(err)
		}
	}
	for _, c := range v.Grammar.Levels {
		raw, _ := json.Marshal(c.Input)
		if got, ok := powerLevel(raw, 9); !ok || got != c.Value {
			t.Errorf("level %q is %d, %v; want %d", c.Input, got, ok, c.Value)
		}
		if _, ok := powerLevel(raw, 10); ok {
			t.Errorf("version 10 takes the level %q", c.Input)
		}
	}
	for _, c := range v.Grammar.Floats {
		if got, ok := powerLevel([]byte(c.Input), 5); !ok || got != c.Value {
			t.Errorf("level %s is %d, %v; want %d", c.Input, got, ok, c.Value)
		}
	}
}
