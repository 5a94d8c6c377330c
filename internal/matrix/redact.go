package matrix

import "slices"

// Redacted is the event without what its version's redaction algorithm removes (spec: "Redactions"). Its ID is the
// same.
func (e *Event) Redacted() (*Event, error) {
	text, err := redact(e)
	if err != nil {
		return nil, err
	}
	return TrustedEvent(text, e.id, e.version)
}

// IsRedacted reports whether redaction would change nothing.
func (e *Event) IsRedacted() bool {
	text, err := redact(e)
	return err == nil && len(text) == len(e.json)
}

// SigningBytes is what servers sign: the redacted event without signatures.
func (e *Event) SigningBytes() []byte {
	text, err := redact(e, "signatures")
	if err != nil {
		return nil // an Event's text was read before
	}
	return text
}

var keptMembers = []string{
	"auth_events", "content", "depth", "event_id", "hashes", "origin_server_ts", "prev_events", "room_id", "sender",
	"signatures", "state_key", "type",
}

// keptOnce are kept by the older redaction algorithms only.
var keptOnce = []string{"membership", "origin", "prev_state"}

// redact writes the redacted form of an event, leaving out some members besides.
func redact(e *Event, leave ...string) ([]byte, error) {
	members, err := topMembers(e.json)
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, len(e.json)), '{')
	for _, m := range members {
		if slices.Contains(leave, m.Key) {
			continue
		}
		switch {
		case m.Key == "content":
			out = appendMember(out, "content", redactContent(e))
		case slices.Contains(keptMembers, m.Key), !e.version.UpdatedRedaction() && slices.Contains(keptOnce, m.Key):
			out = appendMember(out, m.Key, m.Value)
		}
	}
	return append(out, '}'), nil
}

// topMembers is Members for canonical text.
func topMembers(obj []byte) ([]Member, error) {
	s := scanner{data: obj}
	if !s.take('{') {
		return nil, errNoObject
	}
	members := make([]Member, 0, 16)
	for {
		if s.take('}') {
			return members, nil
		}
		s.take(',')
		key, plain, err := s.text()
		if err == nil && !plain {
			key, err = unquote(key)
		}
		if err != nil {
			return nil, err
		}
		s.take(':')
		start := s.pos
		if !s.skip() || s.pos == start {
			return nil, s.fail("not canonical")
		}
		members = append(members, Member{string(key), obj[start:s.pos]})
	}
}

// redactContent is what redaction leaves of an event's content.
func redactContent(e *Event) []byte {
	v := e.version
	switch e.typ {
	case "m.room.member":
		return redactMember(e)
	case "m.room.create":
		if v.UpdatedRedaction() {
			return e.content
		}
		return keep(e.content, "creator")
	case "m.room.join_rules":
		if v.RestrictedJoins() {
			return keep(e.content, "allow", "join_rule")
		}
		return keep(e.content, "join_rule")
	case "m.room.power_levels":
		names := []string{"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"}
		if v.UpdatedRedaction() {
			names = append(names, "invite")
		}
		return keep(e.content, names...)
	case "m.room.history_visibility":
		return keep(e.content, "history_visibility")
	case "m.room.aliases":
		if v.AliasesAuthRule() {
			return keep(e.content, "aliases")
		}
	case "m.room.redaction":
		if v.RedactsInContent() {
			return keep(e.content, "redacts")
		}
	}
	return []byte("{}")
}

func redactMember(e *Event) []byte {
	names := []string{"membership"}
	if e.version.KeepsAuthorisedVia() {
		names = append(names, "join_authorised_via_users_server")
	}
	out := keep(e.content, names...)
	if !e.version.UpdatedRedaction() {
		return out
	}
	signed, ok := Get(e.content, "third_party_invite", "signed")
	if !ok {
		return out
	}
	out = out[:len(out)-1]
	out = appendMember(out, "third_party_invite", slices.Concat([]byte(`{"signed":`), signed, []byte("}")))
	return append(out, '}')
}

// keep writes an object with only some of its members.
func keep(obj []byte, names ...string) []byte {
	out := []byte("{")
	members, err := topMembers(obj)
	if err != nil {
		return []byte("{}")
	}
	for _, m := range members {
		if slices.Contains(names, m.Key) {
			out = appendMember(out, m.Key, m.Value)
		}
	}
	return append(out, '}')
}
