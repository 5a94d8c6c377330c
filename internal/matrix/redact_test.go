package matrix

import (
	"fmt"
	"strings"
	"testing"

	"conclave/internal/testserver/proof"
)

// TestRedaction is the redaction algorithm, event type by event type, in every version: what of a content with every
// member that any version keeps is left.
func TestRedaction(t *testing.T) {
	proof.Of(t, "RD-01", "RD-02", "RD-03", "RD-04", "RD-05")
	always := func(RoomVersion) bool { return true }
	for _, c := range []struct {
		typ, content string
		kept         []struct {
			when func(RoomVersion) bool
			left string
		}
	}{
		{"m.room.message", `{"body":"x"}`, cases(always, `{}`)},
		{"m.room.encrypted", `{"ciphertext":"x"}`, cases(always, `{}`)},
		{"m.room.topic", `{"topic":"x"}`, cases(always, `{}`)},
		{
			"m.room.member", `{"avatar_url":"x","join_authorised_via_users_server":"@a:b","membership":"join","third_party_invite":{"display_name":"x","signed":{"mxid":"y","z":1}}}`,
			cases(RoomVersion.UpdatedRedaction, `{"join_authorised_via_users_server":"@a:b","membership":"join","third_party_invite":{"signed":{"mxid":"y","z":1}}}`,
				RoomVersion.KeepsAuthorisedVia, `{"join_authorised_via_users_server":"@a:b","membership":"join"}`, always, `{"membership":"join"}`),
		},
		{"m.room.member", `{"membership":"join","third_party_invite":7}`, cases(always, `{"membership":"join"}`)},
		{
			"m.room.create", `{"creator":"@a:b","m.federate":true,"other":{"x":1},"room_version":"1"}`,
			cases(RoomVersion.UpdatedRedaction, `{"creator":"@a:b","m.federate":true,"other":{"x":1},"room_version":"1"}`, always, `{"creator":"@a:b"}`),
		},
		{
			"m.room.join_rules", `{"allow":[{"x":1}],"join_rule":"restricted","other":1}`,
			cases(RoomVersion.RestrictedJoins, `{"allow":[{"x":1}],"join_rule":"restricted"}`, always, `{"join_rule":"restricted"}`),
		},
		{
			"m.room.power_levels", `{"ban":1,"events":{"x":1},"events_default":1,"invite":1,"kick":1,"notifications":{"room":1},"redact":1,"state_default":1,"users":{},"users_default":1}`,
			cases(RoomVersion.UpdatedRedaction, `{"ban":1,"events":{"x":1},"events_default":1,"invite":1,"kick":1,"redact":1,"state_default":1,"users":{},"users_default":1}`,
				always, `{"ban":1,"events":{"x":1},"events_default":1,"kick":1,"redact":1,"state_default":1,"users":{},"users_default":1}`),
		},
		{"m.room.history_visibility", `{"history_visibility":"shared","other":1}`, cases(always, `{"history_visibility":"shared"}`)},
		{"m.room.aliases", `{"aliases":["#a:b"],"other":1}`, cases(RoomVersion.AliasesAuthRule, `{"aliases":["#a:b"]}`, always, `{}`)},
		{"m.room.redaction", `{"reason":"x","redacts":"$a"}`, cases(RoomVersion.RedactsInContent, `{"redacts":"$a"}`, always, `{}`)},
		{"m.room.server_acl", `{"allow":["*"]}`, cases(always, `{}`)},
	} {
		for _, v := range RoomVersions() {
			text := fmt.Sprintf(`{"age_ts":1,"auth_events":[],"content":%s,"depth":1,"event_id":"$e:one","hashes":{"sha256":"x"},"membership":"join","origin":"one","origin_server_ts":1,"other":1,"prev_events":[],"prev_state":[],"redacts":"$r","room_id":"!r:one","sender":"@a:one","signatures":{"one":{"k":"s"}},"state_key":"k","type":%q,"unsigned":{"a":1}}`, c.content, c.typ)
			e, err := ParseEvent([]byte(text), v)
			if err != nil {
				t.Fatalf("version %s: %v", v, err)
			}
			left := ""
			for _, k := range c.kept {
				if k.when(v) {
					left = k.left
					break
				}
			}
			id, once := "", ""
			if v.EventIDsInEvent() {
				id = `"event_id":"$e:one",`
			}
			membership, state := "", ""
			if !v.UpdatedRedaction() {
				membership, once, state = `"membership":"join",`, `"origin":"one",`, `"prev_state":[],`
			}
			want := fmt.Sprintf(`{"auth_events":[],"content":%s,"depth":1,%s"hashes":{"sha256":"x"},%s%s"origin_server_ts":1,"prev_events":[],%s"room_id":"!r:one","sender":"@a:one","signatures":{"one":{"k":"s"}},"state_key":"k","type":%q}`,
				left, id, membership, once, state, c.typ)
			red, err := e.Redacted()
			if err != nil {
				t.Fatal(err)
			}
			if string(red.JSON()) != want {
				t.Errorf("version %s: %s is left as\n%s, want\n%s", v, c.typ, red.JSON(), want)
			}
			if red.ID() != e.ID() || !red.IsRedacted() || e.IsRedacted() {
				t.Errorf("version %s: %s: ID %s, then %s; redacted %v, then %v", v, c.typ, e.ID(), red.ID(), e.IsRedacted(), red.IsRedacted())
			}
		}
	}
}

// cases are pairs of a condition and what is left where it holds, the first that does.
func cases(pairs ...any) (out []struct {
	when func(RoomVersion) bool
	left string
}) {
	for i := 0; i < len(pairs); i += 2 {
		when, _ := pairs[i].(func(RoomVersion) bool)
		left, _ := pairs[i+1].(string)
		out = append(out, struct {
			when func(RoomVersion) bool
			left string
		}{when, left})
	}
	return out
}

func TestRedacts(t *testing.T) {
	proof.Of(t, "RV-05")
	for _, v := range RoomVersions() {
		tmpl := template()
		tmpl.Type, tmpl.Content, tmpl.Redacts = "m.room.redaction", []byte(`{"redacts":"$content"}`), "$member"
		e, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
		if err != nil {
			t.Fatal(err)
		}
		want := EventID("$member")
		if v.RedactsInContent() {
			want = "$content"
		}
		if got, ok := e.Redacts(); !ok || got != want {
			t.Errorf("version %s: it redacts %s", v, got)
		}
	}
}

// TestRedactsNamesWhatCanBeAnID: what no event can be called is no target, which databases could not even keep.
func TestRedactsNamesWhatCanBeAnID(t *testing.T) {
	for _, v := range RoomVersions() {
		if !v.RedactsInContent() {
			continue
		}
		for _, id := range []string{`$a\u0000b`, "$" + strings.Repeat("x", maxID)} {
			tmpl := template()
			tmpl.Type, tmpl.Content = "m.room.redaction", []byte(`{"redacts":"`+id+`"}`)
			e, err := tmpl.Build(v, "one", "ed25519:k", eventKey)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := e.Redacts(); ok {
				t.Errorf("version %s: it redacts %.20q", v, got)
			}
		}
	}
}

// TestVersions holds the table of versions to the list of what each of them brought.
func TestVersions(t *testing.T) {
	for name, c := range map[string]struct {
		has         func(RoomVersion) bool
		first, last RoomVersion
	}{
		"IDs in events": {RoomVersion.EventIDsInEvent, 1, 2}, "URL-safe IDs": {RoomVersion.URLSafeEventIDs, 4, 12}, "key validity": {RoomVersion.EnforceKeyValidity, 5, 12},
		"strict JSON": {RoomVersion.StrictCanonicalJSON, 6, 12}, "aliases": {RoomVersion.AliasesAuthRule, 1, 5}, "notifications": {RoomVersion.NotificationLevelsChecked, 6, 12},
		"redaction rule": {RoomVersion.RedactionAuthRule, 1, 2}, "knocking": {RoomVersion.Knocking, 7, 12}, "restricted": {RoomVersion.RestrictedJoins, 8, 12},
		"authorised via": {RoomVersion.KeepsAuthorisedVia, 9, 12}, "knock_restricted": {RoomVersion.KnockRestricted, 10, 12}, "integers": {RoomVersion.IntegerPowerLevels, 10, 12},
		"updated redaction": {RoomVersion.UpdatedRedaction, 11, 12}, "redacts in content": {RoomVersion.RedactsInContent, 11, 12}, "creator in sender": {RoomVersion.CreatorInSender, 11, 12},
		"hash as room": {RoomVersion.RoomIDIsCreateHash, 12, 12}, "creators": {RoomVersion.CreatorsPrivileged, 12, 12},
		"resolution 1": {func(v RoomVersion) bool { return v.StateRes() == 1 }, 1, 1}, "resolution 2": {func(v RoomVersion) bool { return v.StateRes() == 2 }, 2, 11},
		"resolution 2.1": {func(v RoomVersion) bool { return v.StateRes() == 21 }, 12, 12},
	} {
		for _, v := range RoomVersions() {
			if c.has(v) != (v >= c.first && v <= c.last) {
				t.Errorf("%s in version %s: %v", name, v, c.has(v))
			}
		}
	}
	for name, ok := range map[string]bool{"1": true, "12": true, "0": false, "13": false, "01": false, "+1": false, "": false, "1.0": false, "org.x": false, "256": false} {
		if v, got := ParseRoomVersion(name); got != ok || ok && v.String() != name {
			t.Errorf("version %q is known: %v", name, got)
		}
	}
}
