package sync

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// roomNID is a room's number, in short.
type roomNID = store.RoomNID

// wish is what a request wants of a room, by all of its lists and subscriptions that mean it.
type wish struct {
	lists      []string // names of the lists
	subscribed bool
	limit      int // of the timeline
	state      required
}

// required is which state is wanted: whatever one of the sets wants. It is never changed.
type required []*requiredSet

// requiredSet is the required_state of one list or subscription.
type requiredSet struct {
	pairs [][2]string // in a certain order
	text  string      // of the pairs
	key   string      // a hash of it, by which sets are compared
	all   bool        // "*", "*": everything, apart from the types that are named too
	types map[string]*requiredKeys
	lazy  bool // members as they are needed
}

// requiredKeys are the state keys of one type that are wanted, "*" for any type.
type requiredKeys struct {
	any  bool
	keys map[string]bool
}

// newWish reads required_state and timeline_limit. user is who asks, $ME.
func newWish(state [][]string, limit int, user matrix.UserID) (wish, error) {
	if len(state) > maxRequired {
		return wish{}, matrix.InvalidParam("required_state has at most %d entries.", maxRequired)
	}
	pairs := make([][2]string, 0, len(state))
	for _, entry := range state {
		if len(entry) != 2 || len(entry[0]) > maxName || len(entry[1]) > maxName {
			return wish{}, matrix.InvalidParam("An entry of required_state is a type and a state key, of at most %d bytes each.", maxName)
		}
		if entry[1] == "$ME" {
			entry[1] = string(user)
		}
		pairs = append(pairs, [2]string{entry[0], entry[1]})
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	w := wish{limit: max(0, min(limit, maxTimeline))}
	if pairs = slices.Compact(pairs); len(pairs) > 0 {
		w.state = required{newRequiredSet(pairs)}
	}
	return w, nil
}

func newRequiredSet(pairs [][2]string) *requiredSet {
	s := &requiredSet{pairs: pairs, text: string(raw(pairs)), types: map[string]*requiredKeys{}}
	sum := sha256.Sum256([]byte(s.text))
	s.key = hex.EncodeToString(sum[:8])
	for _, pair := range pairs {
		typ, key := pair[0], pair[1]
		if typ == "*" && key == "*" {
			s.all = true
			continue
		}
		of := s.types[typ]
		if of == nil {
			of = &requiredKeys{keys: map[string]bool{}}
			s.types[typ] = of
		}
		switch {
		case typ == "m.room.member" && key == "$LAZY":
			s.lazy = true
		case key == "*":
			of.any = true
		default:
			of.keys[key] = true
		}
	}
	return s
}

func (s *requiredSet) wants(typ, key string) bool {
	of := s.types[typ]
	if of != nil && (of.any || of.keys[key]) {
		return true
	}
	if every := s.types["*"]; every != nil && every.keys[key] {
		return true
	}
	return s.all && of == nil
}

// wants says whether a piece of state is wanted for its own sake.
func (r required) wants(row *store.EventRow) bool {
	key, _ := row.Event.StateKey()
	return slices.ContainsFunc(r, func(s *requiredSet) bool { return s.wants(row.Event.Type(), key) })
}

// lazy says whether members are wanted as they are needed.
func (r required) lazy() bool {
	return slices.ContainsFunc(r, func(s *requiredSet) bool { return s.lazy })
}

// reach says how much of a state has to be looked at to find what is wanted: the named keys alone, or all that is not a
// member, or all members.
func (r required) reach() (keys []authrules.StateKey, rest, members bool) {
	for _, s := range r {
		of := s.types["m.room.member"]
		rest = rest || s.all || s.types["*"] != nil
		members = members || s.all && of == nil || s.types["*"] != nil || of != nil && of.any
		for typ, of := range s.types {
			rest = rest || of.any && typ != "m.room.member"
			for key := range of.keys {
				keys = append(keys, authrules.StateKey{Type: typ, Key: key})
			}
		}
	}
	return keys, rest, members
}

// key names what is wanted: by it two can be compared, and found again (slidingState.required).
func (r required) key() string {
	keys := make([]string, len(r))
	for i, s := range r {
		keys[i] = s.key
	}
	return strings.Join(keys, ",")
}

// join makes one wish of two: the longer timeline, and the state that either wants.
func (w *wish) join(other *wish) {
	w.lists = append(w.lists, other.lists...)
	w.subscribed = w.subscribed || other.subscribed
	w.limit = max(w.limit, other.limit)
	for _, set := range other.state {
		if !slices.ContainsFunc(w.state, func(s *requiredSet) bool { return s.key == set.key }) {
			w.state = append(slices.Clone(w.state), set)
		}
	}
	slices.SortFunc(w.state, func(a, b *requiredSet) int { return strings.Compare(a.key, b.key) })
}
