package matrix

import "strconv"

// ClientEvent is an event as clients see it (client-server API, "Room event format"). unsigned is a JSON object or
// nil; room_id is left out where it is clear from the place, as in /sync.
func ClientEvent(e *Event, unsigned []byte, withRoomID bool) []byte {
	out := make([]byte, 0, len(e.content)+len(unsigned)+320)
	redacts, redaction := e.Redacts()
	out = append(append(out, `{"content":`...), clientContent(e, redacts)...)
	out = AppendString(append(out, `,"event_id":`...), string(e.id))
	out = strconv.AppendInt(append(out, `,"origin_server_ts":`...), e.ts, 10)
	if redaction {
		out = AppendString(append(out, `,"redacts":`...), string(redacts)) // in both places, for clients of either age
	}
	if withRoomID {
		out = AppendString(append(out, `,"room_id":`...), string(e.room))
	}
	out = AppendString(append(out, `,"sender":`...), string(e.sender))
	if e.stateKey != nil {
		out = AppendString(append(out, `,"state_key":`...), *e.stateKey)
	}
	out = AppendString(append(out, `,"type":`...), e.typ)
	if unsigned != nil {
		out = append(append(out, `,"unsigned":`...), unsigned...)
	}
	return append(out, '}')
}

// clientContent is an event's content, with what it redacts also where its room's version does not have that.
func clientContent(e *Event, redacts EventID) []byte {
	if redacts == "" || e.version.RedactsInContent() {
		return e.content
	}
	rest, err := without(e.content, "redacts") // whatever is there means nothing in this version
	if err != nil {
		return e.content
	}
	out := AppendString([]byte(`{"redacts":`), string(redacts))
	if len(rest) > len(`{}`) {
		out = append(out, ',')
	}
	return append(out, rest[1:]...)
}

// Stripped is a state event in the form that invitations carry ("Stripped state").
func Stripped(e *Event) []byte {
	out := append(append(make([]byte, 0, len(e.content)+160), `{"content":`...), e.content...)
	out = AppendString(append(out, `,"sender":`...), string(e.sender))
	key, _ := e.StateKey()
	out = AppendString(append(out, `,"state_key":`...), key)
	out = AppendString(append(out, `,"type":`...), e.typ)
	return append(out, '}')
}
