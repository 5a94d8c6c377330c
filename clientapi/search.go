package clientapi

import (
	"encoding/base64"
	"encoding/json"
	"slices"

	"conclave/clientapi/sync"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

var searchRoutes = []Route{
	op(post, "/search", "search", Token, LimitSearch, (*Server).search),
}

// Bounds of one search.
const (
	maxSearchTerm     = 1000 // bytes
	maxSearchResults  = 100
	maxSearchDetailed = 25 // results with events around them, or with the state of their rooms
	maxSearchContext  = 20 // events on either side
)

// searchBody is the body of /search.
type searchBody struct {
	Categories struct {
		Events *searchCriteria `json:"room_events"`
	} `json:"search_categories"`
}

// searchCriteria are what is searched for in events.
type searchCriteria struct {
	Term    *string          `json:"search_term"`
	Keys    []string         `json:"keys"`
	Filter  sync.EventFilter `json:"filter"`
	OrderBy string           `json:"order_by"`
	Context *struct {
		Before  *int `json:"before_limit"`
		After   *int `json:"after_limit"`
		Profile bool `json:"include_profile"`
	} `json:"event_context"`
	State     bool `json:"include_state"`
	Groupings struct {
		By []struct {
			Key string `json:"key"`
		} `json:"group_by"`
	} `json:"groupings"`
}

// searchToken is where a search goes on, as clients keep it: within a group if it names one. It gives no rights.
type searchToken struct {
	After store.SearchPlace
	Seen  int    // hits that were answered before
	Key   string `json:",omitempty"` // of the group: "room_id" or "sender"
	Value string `json:",omitempty"`
}

func (t searchToken) String() string {
	raw, err := json.Marshal(t)
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

func parseSearchToken(text string) (*searchToken, error) {
	if text == "" {
		return nil, nil
	}
	t := &searchToken{}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(text) > 1000 || json.Unmarshal(raw, t) != nil || t.Seen < 0 || t.Key != "" && t.Key != "room_id" && t.Key != "sender" {
		return nil, matrix.InvalidParam("%.64q is not a token of this server.", text)
	}
	return t, nil
}

var searchKeys = map[string]store.DocumentKind{
	"content.body": store.DocumentBody, "content.name": store.DocumentName, "content.topic": store.DocumentTopic,
}

// search is POST /search.
func (s *Server) search(r *Request) (any, error) {
	var body searchBody
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	c := body.Categories.Events
	if c == nil {
		return map[string]any{"search_categories": struct{}{}}, nil
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	token, err := parseSearchToken(r.QueryParam("next_batch"))
	if err != nil {
		return nil, err
	}
	q, err := s.searchRequest(r, c, token)
	if err != nil {
		return nil, err
	}
	page, err := s.Rooms.Search(r.Ctx(), q)
	if err != nil {
		return nil, err
	}
	answer, err := s.searchAnswer(r, c, q, token, page)
	return map[string]any{"search_categories": map[string]any{"room_events": answer}}, err
}

// check refuses criteria that are none.
func (c *searchCriteria) check() error {
	switch {
	case c.Term == nil:
		return matrix.MissingParam("A search needs a search_term.")
	case len(*c.Term) > maxSearchTerm:
		return matrix.InvalidParam("A search_term has at most %d bytes.", maxSearchTerm)
	case c.OrderBy != "" && c.OrderBy != "rank" && c.OrderBy != "recent":
		return matrix.InvalidParam(`order_by is "rank" or "recent".`)
	case c.Filter.Limit != nil && *c.Filter.Limit < 1:
		return matrix.InvalidParam("limit is a number greater than zero.")
	}
	for _, key := range c.Keys {
		if searchKeys[key] == 0 {
			return matrix.InvalidParam("%.64q is no key that can be searched.", key)
		}
	}
	for _, group := range c.Groupings.By {
		if group.Key != "room_id" && group.Key != "sender" {
			return matrix.InvalidParam("Results are not grouped by %.64q.", group.Key)
		}
	}
	return nil
}

// limit is how many results are wanted at most.
func (c *searchCriteria) limit() int {
	most := maxSearchResults
	if c.Context != nil || c.State {
		most = maxSearchDetailed
	}
	if c.Filter.Limit == nil {
		return defaultPage
	}
	return min(*c.Filter.Limit, most)
}

// searchRequest turns criteria into what the domain is asked.
func (s *Server) searchRequest(r *Request, c *searchCriteria, token *searchToken) (q rooms.SearchRequest, err error) {
	q = rooms.SearchRequest{Recent: c.OrderBy == "recent", Limit: c.limit()}
	for _, word := range rooms.SearchWords(*c.Term) {
		if !slices.Contains(q.Words, word) {
			q.Words = append(q.Words, word)
		}
	}
	if len(q.Words) > store.MaxSearchWords {
		return q, matrix.InvalidParam("A search is for at most %d words.", store.MaxSearchWords)
	}
	keys := c.Keys
	if len(keys) == 0 {
		keys = []string{"content.body", "content.name", "content.topic"}
	}
	for _, key := range keys {
		q.Kinds = append(q.Kinds, searchKeys[key])
	}
	if q.Rooms, err = s.Rooms.SearchRooms(r.Ctx(), r.User()); err != nil {
		return q, err
	}
	if err := s.keepForSearch(r, c, &q); err != nil {
		return q, err
	}
	senders := c.Filter.Senders
	if token != nil {
		q.After = &token.After
		if token.Key == "sender" {
			senders = []string{token.Value}
		}
	}
	for nid, room := range q.Rooms {
		if !c.Filter.KeepsRoom(string(room.Ref.ID)) || token != nil && token.Key == "room_id" && token.Value != string(room.Ref.ID) {
			delete(q.Rooms, nid)
		}
	}
	if senders == nil {
		return q, nil
	}
	ids := make([]matrix.UserID, 0, len(senders))
	for _, name := range senders {
		if id, err := matrix.ParseUserID(name); err == nil { // what is no ID is nobody's
			ids = append(ids, id)
		}
	}
	q.Senders = []store.UserNID{}
	err = s.DB.Read(r.Ctx(), func(tx *store.Tx) error {
		q.Senders = q.Senders[:0]
		return tx.KnownUsers(ids, func(nid store.UserNID, _ matrix.UserID, _ bool) { q.Senders = append(q.Senders, nid) })
	})
	return q, err
}

// keepForSearch has only what passes the filter found, and of users whom the caller ignores only state.
func (s *Server) keepForSearch(r *Request, c *searchCriteria, q *rooms.SearchRequest) error {
	reader, err := s.Rooms.Reader(r.Ctx(), r.Session.User, rooms.Viewer{ID: r.Session.UserID})
	q.Heed = reader.Heeding(nil)
	q.Keep = reader.Heeding(c.Filter.Keeps)
	return err
}

// searchAnswer is what /search answers of events.
type searchAnswer struct {
	Count      int                                `json:"count"`
	Highlights []string                           `json:"highlights"`
	Results    []searchResult                     `json:"results"`
	State      map[matrix.RoomID]json.RawMessage  `json:"state,omitempty"`
	Groups     map[string]map[string]*searchGroup `json:"groups,omitempty"`
	Next       string                             `json:"next_batch,omitempty"`
}

type searchResult struct {
	Rank    float64         `json:"rank"`
	Result  json.RawMessage `json:"result"`
	Context *searchContext  `json:"context,omitempty"`
}

type searchGroup struct {
	Next    string           `json:"next_batch,omitempty"`
	Order   int              `json:"order"`
	Results []matrix.EventID `json:"results"`
}

type searchContext struct {
	Start    string                          `json:"start"`
	End      string                          `json:"end"`
	Before   json.RawMessage                 `json:"events_before"`
	After    json.RawMessage                 `json:"events_after"`
	Profiles map[matrix.UserID]joinedProfile `json:"profile_info,omitempty"`
}

// joinedProfile is what somebody was called when an event was sent.
type joinedProfile struct {
	DisplayName *string `json:"displayname,omitempty"`
	AvatarURL   *string `json:"avatar_url,omitempty"`
}

func (s *Server) searchAnswer(r *Request, c *searchCriteria, q rooms.SearchRequest, token *searchToken, page *rooms.SearchPage) (*searchAnswer, error) {
	answer := &searchAnswer{Count: page.Count, Highlights: q.Words, Results: make([]searchResult, len(page.Hits))}
	if answer.Highlights == nil {
		answer.Highlights = []string{}
	}
	next := searchToken{Seen: len(page.Hits)}
	if token != nil {
		next.Seen, next.Key, next.Value = next.Seen+token.Seen, token.Key, token.Value
		answer.Count += token.Seen
	}
	if page.More != nil {
		next.After = *page.More
		answer.Next = next.String()
	}
	texts, err := s.foundEvents(r, page.Hits)
	if err != nil {
		return nil, err
	}
	for i, hit := range page.Hits {
		answer.Results[i] = searchResult{Rank: float64(hit.At.Score) / 10_000, Result: texts[hit.Row.NID]}
		if c.Context != nil {
			if answer.Results[i].Context, err = s.searchContext(r, c, q.Heed, hit); err != nil {
				return nil, err
			}
		}
	}
	answer.group(c, page, next)
	if c.State {
		answer.State, err = s.foundState(r, page.Hits)
	}
	return answer, err
}

// foundEvents writes what was found, with what relates to it, a room at a time.
func (s *Server) foundEvents(r *Request, hits []rooms.Found) (map[store.EventNID]json.RawMessage, error) {
	byRoom := map[store.RoomNID][]*store.EventRow{}
	in := map[store.RoomNID]rooms.SearchRoom{}
	for _, hit := range hits {
		byRoom[hit.Row.Room] = append(byRoom[hit.Row.Room], hit.Row)
		in[hit.Row.Room] = hit.Room
	}
	texts := map[store.EventNID]json.RawMessage{}
	for nid, rows := range byRoom {
		events, err := s.Sync.Bundled(r.Ctx(), r.viewpoint(), in[nid].Ref, in[nid].Viewer, rows)
		if err != nil {
			return nil, err
		}
		for i, row := range rows {
			texts[row.NID] = events[i]
		}
	}
	return texts, nil
}

// searchContext is what stands around a hit.
func (s *Server) searchContext(r *Request, c *searchCriteria, heed func(*store.EventRow) bool, hit rooms.Found) (*searchContext, error) {
	size := func(n *int) int {
		if n == nil {
			return 5
		}
		return max(0, min(*n, maxSearchContext))
	}
	ref := hit.Room.Ref
	before, after, err := s.Rooms.Surroundings(r.Ctx(), ref, hit.Room.Viewer, hit.Row, size(c.Context.Before), size(c.Context.After), heed)
	if err != nil {
		return nil, err
	}
	shown := slices.Concat(before.Events, after.Events)
	events, err := s.Sync.Timeline(r.Ctx(), r.viewpoint(), ref, shown)
	if err != nil {
		return nil, err
	}
	out := &searchContext{
		Start: sync.FormatPlace(before.End), End: sync.FormatPlace(after.End),
		Before: sync.List(events[:len(before.Events)]), After: sync.List(events[len(before.Events):]),
	}
	if !c.Context.Profile {
		return out, nil
	}
	members, err := s.Rooms.MembersAmong(r.Ctx(), ref.NID, hit.Row.StateAfter(), append(shown, hit.Row))
	if err != nil {
		return nil, err
	}
	out.Profiles = map[matrix.UserID]joinedProfile{}
	for _, row := range members {
		key, _ := row.Event.StateKey()
		out.Profiles[matrix.UserID(key)] = joinedProfile{textOf(row.Event, "displayname"), textOf(row.Event, "avatar_url")}
	}
	return out, nil
}

// group sorts the results of a page into the groups that were asked for. Each can be read on by itself while anything is left.
func (a *searchAnswer) group(c *searchCriteria, page *rooms.SearchPage, next searchToken) {
	for _, by := range c.Groupings.By {
		if a.Groups == nil {
			a.Groups = map[string]map[string]*searchGroup{}
		}
		groups := map[string]*searchGroup{}
		for _, hit := range page.Hits {
			value := string(hit.Room.Ref.ID)
			if by.Key == "sender" {
				value = string(hit.Row.Event.Sender())
			}
			g := groups[value]
			if g == nil {
				g = &searchGroup{Order: len(groups) + 1}
				groups[value] = g
			}
			g.Results = append(g.Results, hit.Row.Event.ID())
			switch {
			case page.More == nil:
			case next.Key == "":
				g.Next = searchToken{After: *page.More, Seen: len(g.Results), Key: by.Key, Value: value}.String()
			case next.Key == by.Key && next.Value == value:
				g.Next = a.Next
			}
		}
		a.Groups[by.Key] = groups
	}
}

// foundState is the state of the rooms in which something was found, as the caller has it.
func (s *Server) foundState(r *Request, hits []rooms.Found) (map[matrix.RoomID]json.RawMessage, error) {
	out := map[matrix.RoomID]json.RawMessage{}
	for _, hit := range hits {
		ref := hit.Room.Ref
		if out[ref.ID] != nil {
			continue
		}
		state, err := s.Rooms.ViewedState(r.Ctx(), ref.NID, hit.Room.Viewer)
		if err != nil {
			return nil, err
		}
		rows, err := s.Rooms.AllState(r.Ctx(), ref.NID, state, true)
		if err == nil {
			rows, err = s.Rooms.StateShown(r.Ctx(), ref, hit.Room.Viewer, rows)
		}
		if err != nil {
			return nil, err
		}
		out[ref.ID] = sync.List(sync.ClientEvents(rows))
	}
	return out, nil
}
