package rooms

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// DirectoryQuery is a page of the directory of published rooms.
type DirectoryQuery struct {
	Limit  int      // 0 is as many as a page may have
	Since  string   // the token of another page
	Search string   // part of a name, topic or alias
	Types  []string // wanted room types, "" for rooms without one; nil wants all

	// Network is third_party_instance_id: rooms of one bridged network alone. AllNetworks beside it has those of all, and
	// the server's own.
	Network     string
	AllNetworks bool

	// Federation leaves out rooms that are closed to other servers.
	Federation bool
}

// DirectoryPage is part of the directory.
type DirectoryPage struct {
	Chunk    []*Summary `json:"chunk"`
	Next     string     `json:"next_batch,omitempty"`
	Previous string     `json:"prev_batch,omitempty"`
	Total    int        `json:"total_room_count_estimate"`
}

// Bounds of the directory.
const (
	maxDirectoryPage  = 500
	maxDirectory      = 20_000 // rooms
	maxDirectorySince = 1 << 10
	directoryLife     = 30 * time.Second
)

// directory is the list of published rooms, the largest first. It is made when it is asked for and kept for a moment: a
// page costs nothing but its filter, however many ask.
type directory struct {
	mu    sync.Mutex
	list  []*Summary
	until time.Time
}

// forget makes the next page look anew: a room was published or taken out.
func (d *directory) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = time.Time{}
}

// Published is a page of the rooms that are published here. Their order is by members, then by ID; a page goes on behind
// the last room of the one before, also if that has changed its place.
func (r *Rooms) Published(ctx context.Context, q DirectoryQuery) (*DirectoryPage, error) {
	from, err := parseDirectoryToken(q.Since)
	if err != nil {
		return nil, err
	}
	list, err := r.published(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(slices.Clone(list), func(s *Summary) bool { return !q.wants(s) })
	limit := maxDirectoryPage
	if q.Limit > 0 {
		limit = min(q.Limit, limit)
	}
	first, last := 0, min(limit, len(list))
	switch {
	case from.Back:
		last, _ = slices.BinarySearchFunc(list, from.summary(), bySize)
		first = max(0, last-limit)
	case from.Room != "":
		at, found := slices.BinarySearchFunc(list, from.summary(), bySize)
		if found {
			at++
		}
		first, last = at, min(at+limit, len(list))
	}
	page := &DirectoryPage{Chunk: list[first:last], Total: len(list)}
	if len(page.Chunk) == 0 {
		page.Chunk = []*Summary{}
	}
	if last < len(list) && last > 0 {
		page.Next = directoryToken{Room: list[last-1].RoomID, Members: list[last-1].Members}.String()
	}
	if first > 0 && first < len(list) {
		page.Previous = directoryToken{Room: list[first].RoomID, Members: list[first].Members, Back: true}.String()
	}
	return page, nil
}

// published is the whole directory as it is now, or was a moment ago, with the rooms of networks.
func (r *Rooms) published(ctx context.Context) ([]*Summary, error) {
	d := &r.directory
	d.mu.Lock() // whoever asks meanwhile waits for the same answer
	defer d.mu.Unlock()
	if r.now().Before(d.until) {
		return d.list, nil
	}
	listings, err := r.listings(ctx)
	if err != nil {
		return nil, err
	}
	var list []*Summary
	add := func(ref Ref, public bool) error {
		resident, err := r.resident(ctx, ref.NID)
		if err != nil || !resident { // or nobody is left who could let anybody in
			return err
		}
		s, err := r.Summarise(ctx, ref)
		if err != nil {
			return fmt.Errorf("summarising room %s: %w", ref.ID, err)
		}
		s.public, s.networks = public, listings[ref.NID]
		list = append(list, s)
		return nil
	}
	if err := r.eachPublic(ctx, func(ref Ref) (bool, error) {
		err := add(ref, true)
		delete(listings, ref.NID)
		return len(list) < maxDirectory, err
	}); err != nil {
		return nil, err
	}
	for nid := range listings { // those that only networks list
		if len(list) >= maxDirectory {
			break
		}
		ref, err := r.LookupNID(ctx, nid)
		if err == nil {
			err = add(ref, false)
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, bySize)
	d.list, d.until = list, r.now().Add(directoryLife)
	return list, nil
}

// eachPublic calls do for the rooms of the server's own directory until it wants no more.
func (r *Rooms) eachPublic(ctx context.Context, do func(Ref) (more bool, err error)) error {
	for last := store.RoomNID(0); ; {
		var page []Ref
		err := r.db.Read(ctx, func(tx *store.Tx) error {
			page = page[:0]
			return tx.PublicRooms(last, 500, func(i store.RoomInfo) { page = append(page, Ref{NID: i.NID, ID: i.ID, Version: i.Version}) })
		})
		if err != nil || len(page) == 0 {
			return err
		}
		last = page[len(page)-1].NID
		for _, ref := range page {
			if more, err := do(ref); err != nil || !more {
				return err
			}
		}
	}
}

// bySize orders the directory.
func bySize(a, b *Summary) int {
	return cmp.Or(cmp.Compare(b.Members, a.Members), strings.Compare(string(a.RoomID), string(b.RoomID)))
}

// wants says whether a room is what a query looks for.
func (q DirectoryQuery) wants(s *Summary) bool {
	if !q.inNetwork(s) || q.Federation && !s.federates {
		return false
	}
	if q.Types != nil && !slices.Contains(q.Types, s.RoomType) {
		return false
	}
	if q.Search == "" {
		return true
	}
	term := strings.ToLower(q.Search)
	return slices.ContainsFunc([]string{s.Name, s.Topic, string(s.Alias)}, func(text string) bool {
		return strings.Contains(strings.ToLower(text), term)
	})
}

// directoryToken is a place in the directory: behind a room or, backwards, before it.
type directoryToken struct {
	Room    matrix.RoomID `json:"r"`
	Members int           `json:"m"`
	Back    bool          `json:"b,omitempty"`
}

// String is the token as clients have it.
func (t directoryToken) String() string {
	raw, err := json.Marshal(t)
	if err != nil {
		panic(err) // text and numbers
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

func (t directoryToken) summary() *Summary { return &Summary{RoomID: t.Room, Members: t.Members} }

func parseDirectoryToken(text string) (t directoryToken, err error) {
	if text == "" {
		return t, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = matrix.Decode(raw, &t)
	}
	if err != nil || len(text) > maxDirectorySince || t.Room == "" {
		return t, matrix.InvalidParam("since is no token of this directory.").With(err)
	}
	return t, nil
}

// DirectoryBody is the body of a query for published rooms, of clients and servers alike.
type DirectoryBody struct {
	Limit   int             `json:"limit"`
	Since   string          `json:"since"`
	Network string          `json:"third_party_instance_id"`
	All     bool            `json:"include_all_networks"`
	Filter  DirectoryFilter `json:"filter"`
}

// Query is what the body asks for.
func (b DirectoryBody) Query() DirectoryQuery {
	q := DirectoryQuery{Limit: max(0, b.Limit), Since: b.Since, Network: b.Network, AllNetworks: b.All}
	b.Filter.Apply(&q)
	return q
}

// DirectoryFilter is the filter object of a query for published rooms.
type DirectoryFilter struct {
	Search string    `json:"generic_search_term,omitempty"`
	Types  []*string `json:"room_types,omitempty"` // null stands for rooms without a type
}

// Apply puts a filter into a query.
func (f DirectoryFilter) Apply(q *DirectoryQuery) {
	q.Search = f.Search
	for _, t := range f.Types {
		if t == nil {
			t = new(string)
		}
		q.Types = append(q.Types, *t)
	}
}

// Filter is a query's filter object, nil if it has none.
func (q DirectoryQuery) Filter() *DirectoryFilter {
	if q.Search == "" && q.Types == nil {
		return nil
	}
	f := &DirectoryFilter{Search: q.Search}
	for _, t := range q.Types {
		one := &t
		if t == "" {
			one = nil
		}
		f.Types = append(f.Types, one)
	}
	return f
}

// ReadDirectory reads another server's page for a query: what it says of each room stands alone, so that one bad entry
// spoils nothing, and there is no more than was asked for.
func ReadDirectory(raw []byte, q DirectoryQuery) (*DirectoryPage, error) {
	var answer struct {
		Chunk    []json.RawMessage `json:"chunk"`
		Next     string            `json:"next_batch"`
		Previous string            `json:"prev_batch"`
		Total    int               `json:"total_room_count_estimate"`
	}
	if err := matrix.Decode(raw, &answer); err != nil {
		return nil, err
	}
	page := &DirectoryPage{Chunk: []*Summary{}, Total: max(0, answer.Total)}
	if len(answer.Next) <= maxDirectorySince {
		page.Next = answer.Next
	}
	if len(answer.Previous) <= maxDirectorySince {
		page.Previous = answer.Previous
	}
	limit := maxDirectoryPage
	if q.Limit > 0 {
		limit = min(q.Limit, limit)
	}
	for _, raw := range answer.Chunk {
		if len(page.Chunk) == limit {
			break
		}
		s := &Summary{}
		if matrix.Decode(raw, s) == nil && s.clean() {
			page.Chunk = append(page.Chunk, s)
		}
	}
	return page, nil
}
