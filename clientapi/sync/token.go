package sync

import (
	"fmt"
	"strconv"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// Token is where a client stands: a position in the stream of persisted changes, one in this node's ephemeral
// changes, and the generation of the database that both belong to (law 4).
type Token struct {
	Pos       store.Pos
	Ephemeral int64
	// Presence is a position in this node's changes of who is online; 0 if the client knows nothing of it.
	Presence   int64
	Generation string
	// Messages is how far the client has got its messages to the device, where that is less than Pos; else 0.
	Messages store.Pos
}

// messages is the position up to which the client has its messages to the device.
func (t Token) messages() store.Pos {
	if t.Messages != 0 {
		return t.Messages
	}
	return t.Pos
}

// String is the form that clients keep.
func (t Token) String() string {
	fleeting := strconv.FormatInt(t.Ephemeral, 10)
	if t.Presence != 0 {
		fleeting += "." + strconv.FormatInt(t.Presence, 10)
	}
	if t.Messages != 0 {
		return fmt.Sprintf("s%d_%s_%s_%d", t.Pos, fleeting, t.Generation, t.Messages)
	}
	return fmt.Sprintf("s%d_%s_%s", t.Pos, fleeting, t.Generation)
}

// ParseToken reads a sync token. One of a foreign generation is no error but Pos 0: the client starts afresh.
func (e *Engine) ParseToken(text string) (Token, error) {
	rest, ok := strings.CutPrefix(text, "s")
	parts := strings.Split(rest, "_")
	if !ok || len(parts) < 3 || len(parts) > 4 {
		return Token{}, badToken(text)
	}
	first, second, online := strings.Cut(parts[1], ".")
	if !online {
		second = "0"
	}
	pos, err1 := strconv.ParseInt(parts[0], 10, 64)
	ephemeral, err2 := strconv.ParseInt(first, 10, 64)
	presence, err3 := strconv.ParseInt(second, 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || pos < 0 || ephemeral < 0 || presence < 0 {
		return Token{}, badToken(text)
	}
	if parts[2] != e.generation {
		return Token{Generation: e.generation}, nil
	}
	token := Token{Pos: store.Pos(pos), Ephemeral: ephemeral, Presence: presence, Generation: e.generation}
	if len(parts) == 4 {
		messages, err := strconv.ParseInt(parts[3], 10, 64)
		if err != nil || messages < 1 || messages > pos {
			return Token{}, badToken(text)
		}
		token.Messages = store.Pos(messages)
	}
	return token, nil
}

func badToken(text string) error {
	return matrix.InvalidParam("%.64q is not a token of this server.", text)
}

// FormatPlace is a place in a room's timeline as clients keep it (prev_batch, start, end).
func FormatPlace(p rooms.Place) string {
	return fmt.Sprintf("t%d_%d", p.Pos, p.Sub)
}

// ParsePlace reads a place, or a sync token, which stands for the place that it had reached in every room.
func (e *Engine) ParsePlace(text string) (rooms.Place, error) {
	if strings.HasPrefix(text, "p") {
		token, err := e.ParseSlidingToken(text)
		return rooms.Place{Pos: token.Pos}, err
	}
	if strings.HasPrefix(text, "s") {
		token, err := e.ParseToken(text)
		return rooms.Place{Pos: token.Pos}, err
	}
	rest, ok := strings.CutPrefix(text, "t")
	first, second, found := strings.Cut(rest, "_")
	pos, err1 := strconv.ParseInt(first, 10, 64)
	sub, err2 := strconv.ParseInt(second, 10, 64)
	if !ok || !found || err1 != nil || err2 != nil || pos < 0 || sub > 0 {
		return rooms.Place{}, badToken(text)
	}
	return rooms.Place{Pos: store.Pos(pos), Sub: sub}, nil
}
