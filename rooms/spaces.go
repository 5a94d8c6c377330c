package rooms

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// SpaceRoom is a room in the tree of a space: what may be told of it, and its children.
type SpaceRoom struct {
	Summary
	Children []SpaceChild `json:"children_state"`
}

// SpaceChild is an m.space.child event as outsiders see it.
type SpaceChild struct {
	Type     string          `json:"type"`
	StateKey string          `json:"state_key"` // the child's room ID
	Content  json.RawMessage `json:"content"`
	Sender   matrix.UserID   `json:"sender"`
	TS       int64           `json:"origin_server_ts"`
}

// SpaceView is what one server tells another of a room and of the children that are in it (getSpaceHierarchy).
type SpaceView struct {
	Room         SpaceRoom       `json:"room"`
	Children     []*Summary      `json:"children"`
	Inaccessible []matrix.RoomID `json:"inaccessible_children"`
}

// AskSpace asks another server for its view of a room.
type AskSpace func(ctx context.Context, server matrix.ServerName, room matrix.RoomID) (*SpaceView, error)

// Bounds of the tree of a space (threats A15): its depth, the rooms that are looked at for one request, and the servers
// that are asked for it.
const (
	maxSpaceDepth    = 10
	defaultSpaceRoom = 50
	maxSpaceRooms    = 100 // of a page
	maxSpaceWalk     = 2000
	maxSpaceChildren = 1000 // of one room
	maxSpaceAsked    = 30
	spaceAskTime     = 10 * time.Second
	spaceWalkTime    = 45 * time.Second
	spaceViewLife    = 5 * time.Minute
)

// spaceViews remembers what other servers told of rooms.
type spaceViews = otter.Cache[matrix.RoomID, *SpaceView]

func newSpaceViews() *spaceViews {
	return otter.Must(&otter.Options[matrix.RoomID, *SpaceView]{
		MaximumSize: 2000, ExpiryCalculator: otter.ExpiryWriting[matrix.RoomID, *SpaceView](spaceViewLife),
	})
}

// spaceRoom tells of a room that we are in; nil if we are not.
func (r *Rooms) spaceRoom(ctx context.Context, id matrix.RoomID) (*SpaceRoom, Ref, error) {
	ref, err := r.Lookup(ctx, id)
	if err != nil {
		var known *matrix.Error
		if errors.As(err, &known) {
			err = nil // it is not known here
		}
		return nil, ref, err
	}
	resident, err := r.resident(ctx, ref.NID)
	if err != nil || !resident {
		return nil, ref, err
	}
	s, err := r.Summarise(ctx, ref)
	if err != nil {
		return nil, ref, err
	}
	room := &SpaceRoom{Summary: *s, Children: []SpaceChild{}}
	if s.RoomType != "m.space" {
		return room, ref, nil
	}
	state, err := r.CurrentState(ctx, ref.NID)
	if err != nil {
		return nil, ref, err
	}
	rows, err := r.AllState(ctx, ref.NID, state, false)
	if err != nil {
		return nil, ref, err
	}
	for _, row := range rows {
		if row.Event.Type() == "m.space.child" {
			key, _ := row.Event.StateKey()
			room.Children = append(room.Children, SpaceChild{
				Type: "m.space.child", StateKey: key, Content: row.Event.Content(), Sender: row.Event.Sender(), TS: row.Event.OriginServerTS(),
			})
		}
	}
	room.tidy()
	return room, ref, nil
}

// tidy leaves the children that are ones, in their order: those with a usable order first, by it; then by age, then by ID.
func (s *SpaceRoom) tidy() {
	s.Children = slices.DeleteFunc(s.Children, func(c SpaceChild) bool {
		_, err := matrix.ParseRoomID(c.StateKey)
		if err == nil {
			_, err = matrix.ParseUserID(string(c.Sender))
		}
		return err != nil || c.Type != "m.space.child" || len(c.via()) == 0
	})
	slices.SortFunc(s.Children, func(a, b SpaceChild) int {
		orderA, okA := a.order()
		orderB, okB := b.order()
		switch {
		case okA && okB && orderA != orderB:
			return strings.Compare(orderA, orderB)
		case okA != okB:
			if okA {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.TS, b.TS), strings.Compare(a.StateKey, b.StateKey))
	})
	if s.Children = s.Children[:min(len(s.Children), maxSpaceChildren)]; s.Children == nil {
		s.Children = []SpaceChild{}
	}
}

// order is the child's own order, if it is what the specification allows.
func (c SpaceChild) order() (string, bool) {
	text, ok := matrix.GetString(c.Content, "order")
	if !ok || text == "" || len(text) > 50 {
		return "", false
	}
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			return "", false
		}
	}
	return text, true
}

// via are the servers that the child names; without any it is no child (any more).
func (c SpaceChild) via() (names []matrix.ServerName) {
	var content struct {
		Via []json.RawMessage `json:"via"`
	}
	if json.Unmarshal(c.Content, &content) != nil {
		return nil
	}
	for _, raw := range content.Via {
		var text string
		if json.Unmarshal(raw, &text) != nil {
			continue
		}
		if name, err := matrix.ParseServerName(text); err == nil && len(names) < 5 {
			names = append(names, name)
		}
	}
	return names
}

func (c SpaceChild) suggested() bool {
	raw, ok := matrix.Get(c.Content, "suggested")
	return ok && string(raw) == "true"
}

// SpaceForServer is what a server may know of a room of ours and its children (getSpaceHierarchy).
func (r *Rooms) SpaceForServer(ctx context.Context, origin matrix.ServerName, id matrix.RoomID, suggestedOnly bool) (*SpaceView, error) {
	room, ref, err := r.spaceRoom(ctx, id)
	if err != nil {
		return nil, err
	}
	if room != nil {
		if ok, err := r.serverMayKnow(ctx, origin, ref, &room.Summary); err != nil || !ok {
			room = nil
			if err != nil {
				return nil, err
			}
		}
	}
	if room == nil {
		return nil, matrix.NotFound("There is no room %s here, or your server may not know of it.", id)
	}
	view := &SpaceView{Room: *room, Children: []*Summary{}, Inaccessible: []matrix.RoomID{}}
	for _, c := range room.Children {
		if suggestedOnly && !c.suggested() || len(view.Children)+len(view.Inaccessible) >= maxSpaceRooms {
			continue
		}
		child, ref, err := r.spaceRoom(ctx, matrix.RoomID(c.StateKey))
		if err != nil {
			return nil, err
		}
		if child == nil {
			continue // others may know of it
		}
		ok, err := r.serverMayKnow(ctx, origin, ref, &child.Summary)
		if err != nil {
			return nil, err
		}
		if ok {
			view.Children = append(view.Children, &child.Summary)
		} else {
			view.Inaccessible = append(view.Inaccessible, child.RoomID)
		}
	}
	return view, nil
}

// serverMayKnow says whether a server's users could get into a room or look into it.
func (r *Rooms) serverMayKnow(ctx context.Context, server matrix.ServerName, ref Ref, s *Summary) (may bool, err error) {
	if s.OpenToAll() {
		return true, nil
	}
	in := func(ref Ref) (yes bool, err error) {
		err = r.db.Read(ctx, func(tx *store.Tx) error {
			if yes, err = tx.ServerIn(ref.NID, server); err != nil || yes {
				return err
			}
			invited, err := tx.MembersOfServer(ref.NID, server, store.Invite)
			yes = len(invited) > 0
			return err
		})
		return yes, err
	}
	if may, err = in(ref); err != nil || may {
		return may, err
	}
	if s.JoinRule != "restricted" {
		return false, nil
	}
	for _, id := range s.AllowedRooms {
		allowed, err := r.Lookup(ctx, id)
		if err != nil {
			continue // it is not known here
		}
		if err := r.db.Read(ctx, func(tx *store.Tx) error { may, err = tx.ServerIn(allowed.NID, server); return err }); err != nil || may {
			return may, err
		}
	}
	return false, nil
}

// HierarchyRequest asks for a part of a space's tree as a user may see it.
type HierarchyRequest struct {
	Room          matrix.RoomID
	User          Sender
	SuggestedOnly bool
	Limit         int // 0 is the default
	MaxDepth      int // negative is the default
	From          string
	Ask           AskSpace // nil: nobody is asked
}

// HierarchyPage is a part of a tree, in the order of its walk: a room before its children.
type HierarchyPage struct {
	Rooms []*SpaceRoom `json:"rooms"`
	Next  string       `json:"next_batch,omitempty"`
}

// hierarchyToken is how much of a walk has been seen, and what walk it is.
type hierarchyToken struct {
	Seen      int  `json:"n"`
	Depth     int  `json:"d"`
	Suggested bool `json:"s,omitempty"`
}

// Hierarchy walks the tree of a space, depth first, as far as a user may know of its rooms. Rooms that are not here are
// asked for at the servers that their parents name.
func (r *Rooms) Hierarchy(ctx context.Context, q HierarchyRequest) (*HierarchyPage, error) {
	if q.MaxDepth < 0 || q.MaxDepth > maxSpaceDepth {
		q.MaxDepth = maxSpaceDepth
	}
	if q.Limit <= 0 {
		q.Limit = defaultSpaceRoom
	}
	q.Limit = min(q.Limit, maxSpaceRooms)
	token := hierarchyToken{Depth: q.MaxDepth, Suggested: q.SuggestedOnly}
	if q.From != "" {
		was := hierarchyToken{}
		raw, err := base64.RawURLEncoding.DecodeString(q.From)
		if err == nil {
			err = matrix.Decode(raw, &was)
		}
		if err != nil || was.Seen <= 0 || was.Depth != token.Depth || was.Suggested != token.Suggested {
			return nil, matrix.InvalidParam("from is no token of this tree, or max_depth or suggested_only have changed since.").With(err)
		}
		token = was
	}
	inTime, cancel := context.WithTimeout(ctx, spaceWalkTime)
	defer cancel()
	w := &spaceWalk{r: r, q: q, want: token.Seen + q.Limit, been: map[matrix.RoomID]bool{}, told: map[matrix.RoomID]*Summary{}, gone: map[matrix.RoomID]bool{}}
	if err := w.visit(inTime, q.Room, nil, 0); err != nil {
		return nil, err
	}
	if len(w.found) == 0 {
		return nil, matrix.Forbidden("There is no room %s, or you may not know of it.", q.Room)
	}
	page := &HierarchyPage{Rooms: []*SpaceRoom{}}
	if token.Seen < len(w.found) {
		page.Rooms = w.found[token.Seen:min(len(w.found), token.Seen+q.Limit)]
	}
	if w.more {
		token.Seen += len(page.Rooms)
		raw, err := json.Marshal(token)
		if err != nil {
			return nil, err
		}
		page.Next = base64.RawURLEncoding.EncodeToString(raw)
	}
	return page, nil
}

// spaceWalk is one walk through a tree.
type spaceWalk struct {
	r     *Rooms
	q     HierarchyRequest
	want  int // rooms, after which the walk ends
	found []*SpaceRoom
	more  bool // there is something behind the last one
	asked int
	been  map[matrix.RoomID]bool
	told  map[matrix.RoomID]*Summary // children that another server told of together with their parent
	gone  map[matrix.RoomID]bool     // children that it said nobody of ours may know of
}

// visit looks at a room and then at what is below it.
func (w *spaceWalk) visit(ctx context.Context, id matrix.RoomID, via []matrix.ServerName, depth int) error {
	if w.more || w.been[id] || len(w.been) >= maxSpaceWalk {
		return nil
	}
	w.been[id] = true
	room, err := w.room(ctx, id, via)
	if err != nil || room == nil {
		return err
	}
	if ok, err := w.r.userMayKnow(ctx, w.q.User, &room.Summary); err != nil || !ok {
		return err
	}
	if len(w.found) == w.want {
		w.more = true
		return nil
	}
	children := room.Children
	if w.q.SuggestedOnly {
		children = slices.DeleteFunc(slices.Clone(children), func(c SpaceChild) bool { return !c.suggested() })
	}
	w.found = append(w.found, &SpaceRoom{Summary: room.Summary, Children: children})
	if depth == w.q.MaxDepth {
		return nil
	}
	for _, c := range children {
		if err := w.visit(ctx, matrix.RoomID(c.StateKey), c.via(), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// room finds what is known of a room, here or at others; nil if nothing is.
func (w *spaceWalk) room(ctx context.Context, id matrix.RoomID, via []matrix.ServerName) (*SpaceRoom, error) {
	room, _, err := w.r.spaceRoom(ctx, id)
	if err != nil || room != nil {
		return room, err
	}
	if told := w.told[id]; told != nil && told.RoomType != "m.space" {
		return &SpaceRoom{Summary: *told, Children: []SpaceChild{}}, nil
	}
	if w.gone[id] {
		return nil, nil
	}
	view, ok := w.r.spaceViews.GetIfPresent(id)
	for _, server := range via {
		if ok || w.q.Ask == nil || w.asked >= maxSpaceAsked || ctx.Err() != nil || w.r.own.IsOurs(server) {
			break
		}
		w.asked++
		answer, err := w.ask(ctx, server, id)
		if err != nil {
			w.r.log.Debug("asking for a room of a space failed", "room", id, "server", server, "err", err)
			continue
		}
		view, ok = answer, true
		w.r.spaceViews.Set(id, view)
	}
	if !ok {
		return nil, nil
	}
	for _, child := range view.Children {
		w.told[child.RoomID] = child
	}
	for _, gone := range view.Inaccessible {
		w.gone[gone] = true
	}
	return &view.Room, nil
}

func (w *spaceWalk) ask(ctx context.Context, server matrix.ServerName, id matrix.RoomID) (*SpaceView, error) {
	inTime, cancel := context.WithTimeout(ctx, spaceAskTime)
	defer cancel()
	view, err := w.q.Ask(inTime, server, id)
	if err == nil && !view.clean(id) {
		err = errors.New("rooms: the answer is not about the room")
	}
	return view, err
}

// clean bounds another server's view: it is of the room that was asked for, and tells only of its children.
func (v *SpaceView) clean(id matrix.RoomID) bool {
	if v.Room.RoomID != id || !v.Room.clean() {
		return false
	}
	v.Room.tidy()
	children := map[matrix.RoomID]bool{}
	for _, c := range v.Room.Children {
		children[matrix.RoomID(c.StateKey)] = true
	}
	v.Children = slices.DeleteFunc(v.Children, func(s *Summary) bool { return s == nil || !children[s.RoomID] || !s.clean() })
	v.Inaccessible = slices.DeleteFunc(v.Inaccessible, func(id matrix.RoomID) bool { return !children[id] })
	return true
}

// userMayKnow says whether a user is in a room, may get in or may look into it.
func (r *Rooms) userMayKnow(ctx context.Context, user Sender, s *Summary) (bool, error) {
	if s.OpenToAll() {
		return true, nil
	}
	stands, err := r.standsIn(ctx, s.RoomID, user)
	if err != nil || stands == store.Join || stands == store.Invite {
		return err == nil, err
	}
	if s.JoinRule != "restricted" {
		return false, nil
	}
	for _, id := range s.AllowedRooms {
		if stands, err := r.standsIn(ctx, id, user); err != nil || stands == store.Join {
			return err == nil, err
		}
	}
	return false, nil
}

// standsIn is a user's membership of a room that may not be known here.
func (r *Rooms) standsIn(ctx context.Context, id matrix.RoomID, user Sender) (store.Membership, error) {
	if user.NID == 0 {
		return 0, nil
	}
	ref, err := r.Lookup(ctx, id)
	if err != nil {
		var known *matrix.Error
		if errors.As(err, &known) {
			err = nil
		}
		return 0, err
	}
	row, err := r.Membership(ctx, ref.NID, user.NID)
	if err != nil || row == nil {
		return 0, err
	}
	return row.Membership, nil
}

// RoomSummary tells a user, or (with NID 0) anybody, of a room: one of ours, or one that another server tells of.
func (r *Rooms) RoomSummary(ctx context.Context, id matrix.RoomID, user Sender, via []matrix.ServerName, ask AskSpace) (*Summary, store.Membership, error) {
	w := &spaceWalk{r: r, q: HierarchyRequest{Room: id, User: user, Ask: ask}, told: map[matrix.RoomID]*Summary{}, gone: map[matrix.RoomID]bool{}}
	room, err := w.room(ctx, id, via)
	if err != nil {
		return nil, 0, err
	}
	if room != nil {
		ok, err := r.userMayKnow(ctx, user, &room.Summary)
		if err != nil {
			return nil, 0, err
		}
		if ok {
			stands, err := r.standsIn(ctx, id, user)
			return &room.Summary, stands, err
		}
	}
	return nil, 0, matrix.NotFound("There is no room %s, or you may not know of it.", id)
}
