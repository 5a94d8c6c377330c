package sync

import (
	"encoding/json"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// SlidingBody is the body of a request of sliding sync (MSC4186, "Request Body", in the form that clients use until it is
// stable).
type SlidingBody struct {
	ConnID        string                             `json:"conn_id"`
	Lists         map[string]*slidingList            `json:"lists"`
	Subscriptions map[matrix.RoomID]*slidingRoomWish `json:"room_subscriptions"`
	Extensions    slidingAsked                       `json:"extensions"`
}

// slidingRoomWish says what is wanted of a room.
type slidingRoomWish struct {
	State    [][]string `json:"required_state"`
	Timeline int        `json:"timeline_limit"`

	wish wish
}

// slidingList asks for the rooms at some places of a list.
type slidingList struct {
	State    [][]string     `json:"required_state"`
	Timeline int            `json:"timeline_limit"`
	Ranges   slidingRanges  `json:"ranges"`
	Range    slidingRanges  `json:"range"`
	Filters  *slidingFilter `json:"filters"`

	wish wish
}

// slidingRanges are ranges of places, both ends included: several, or a single one by itself.
type slidingRanges [][2]int

// UnmarshalJSON reads [[0,9],[20,29]] and [0,9].
func (r *slidingRanges) UnmarshalJSON(text []byte) error {
	var single []int
	var several [][]int
	if json.Unmarshal(text, &single) == nil && len(single) > 0 {
		several = [][]int{single}
	} else if err := json.Unmarshal(text, &several); err != nil {
		return err
	}
	*r = nil
	for _, pair := range several {
		if len(pair) != 2 || pair[0] < 0 || pair[1] < pair[0] {
			return matrix.InvalidParam("A range is two numbers, the first not above the second.")
		}
		*r = append(*r, [2]int{pair[0], pair[1]})
	}
	return nil
}

// slidingFilter says which rooms are in a list. All that is given has to hold.
type slidingFilter struct {
	IsDM         *bool           `json:"is_dm"`
	Encrypted    *bool           `json:"is_encrypted"`
	Invite       *bool           `json:"is_invite"`
	Invited      *bool           `json:"is_invited"` // as it is to be called
	RoomTypes    []*string       `json:"room_types"`
	NotRoomTypes []*string       `json:"not_room_types"`
	Spaces       []matrix.RoomID `json:"spaces"`
	Tags         []string        `json:"tags"`
	NotTags      []string        `json:"not_tags"`
	NameLike     string          `json:"room_name_like"`
}

// slidingAsked are the extensions that a request asks for.
type slidingAsked struct {
	ToDevice *slidingToDevice `json:"to_device"`
	E2EE     *slidingSwitch   `json:"e2ee"`
	Data     *slidingSwitch   `json:"account_data"`
	Typing   *slidingSwitch   `json:"typing"`
	Receipts *slidingSwitch   `json:"receipts"`
}

// slidingToDevice asks for messages to the device after what the client has (MSC3885).
type slidingToDevice struct {
	Enabled bool   `json:"enabled"`
	Limit   *int   `json:"limit"`
	Since   string `json:"since"`

	from store.Pos // of Since, or of the position
}

// slidingSwitch asks for an extension, and for which of the rooms: those of some lists and some of those subscribed to. What
// is not given is all.
type slidingSwitch struct {
	Enabled bool      `json:"enabled"`
	Lists   *[]string `json:"lists"`
	Rooms   *[]string `json:"rooms"`
}

// on says whether an extension is asked for at all.
func (x *slidingSwitch) on() bool { return x != nil && x.Enabled }

// covers says whether an extension is asked for of a room.
func (x *slidingSwitch) covers(id matrix.RoomID, w *wish) bool {
	if !x.on() {
		return false
	}
	if len(w.lists) > 0 && (x.Lists == nil || slices.ContainsFunc(*x.Lists, func(name string) bool {
		return name == "*" || slices.Contains(w.lists, name)
	})) {
		return true
	}
	if x.Rooms == nil {
		return w.subscribed
	}
	return slices.Contains(*x.Rooms, string(id)) || w.subscribed && slices.Contains(*x.Rooms, "*")
}

// Bounds of a request, of what it may ask for and of the work that it makes.
const (
	maxConnID        = 64 // bytes
	maxLists         = 100
	maxSubscriptions = 500
	maxRanges        = 20
	maxRequired      = 200 // entries of required state, of a list or subscription
	maxSets          = 50  // different required_state of one request
	maxChoices       = 100 // entries of each part of a filter
	maxSpaces        = 200 // spaces of all filters
	maxName          = 255 // bytes
)

// ParseSlidingBody reads a request's body, strictly and within its bounds. user is who asks.
func ParseSlidingBody(text []byte, user matrix.UserID) (*SlidingBody, error) {
	b := &SlidingBody{}
	if err := matrix.Decode(text, b); err != nil {
		return nil, err
	}
	if !matrix.IsText(b.ConnID) {
		return nil, matrix.InvalidParam("conn_id is text without NUL.")
	}
	if len(b.ConnID) > maxConnID || len(b.Lists) > maxLists || len(b.Subscriptions) > maxSubscriptions {
		return nil, matrix.InvalidParam("A request has at most %d lists and %d rooms, and its conn_id %d bytes.", maxLists, maxSubscriptions, maxConnID)
	}
	for name, list := range b.Lists {
		if list == nil || len(name) > maxName {
			return nil, matrix.InvalidParam("A list is an object with a name of at most %d bytes.", maxName)
		}
		if list.Range != nil {
			list.Ranges = append(list.Ranges, list.Range...)
		}
		if len(list.Ranges) > maxRanges {
			return nil, matrix.InvalidParam("A list has at most %d ranges.", maxRanges)
		}
		if !list.Ranges.apart() {
			return nil, matrix.InvalidParam("The ranges of a list do not overlap.")
		}
		if err := list.Filters.check(); err != nil {
			return nil, err
		}
		w, err := newWish(list.State, list.Timeline, user)
		if err != nil {
			return nil, err
		}
		w.lists = []string{name}
		list.wish = w
	}
	for _, room := range b.Subscriptions {
		if room == nil {
			return nil, matrix.InvalidParam("A subscription is an object.")
		}
		w, err := newWish(room.State, room.Timeline, user)
		if err != nil {
			return nil, err
		}
		w.subscribed = true
		room.wish = w
	}
	return b, b.checkSums()
}

// checkSums refuses a request whose parts are too many together: each room is compared with all of them.
func (b *SlidingBody) checkSums() error {
	sets, spaces := map[string]bool{}, 0
	note := func(w *wish) {
		for _, s := range w.state {
			sets[s.key] = true
		}
	}
	for _, list := range b.Lists {
		note(&list.wish)
		if list.Filters != nil {
			spaces += len(list.Filters.Spaces)
		}
	}
	for _, room := range b.Subscriptions {
		note(&room.wish)
	}
	if len(sets) > maxSets || spaces > maxSpaces {
		return matrix.InvalidParam("A request has at most %d different required_state, and %d spaces in its filters.", maxSets, maxSpaces)
	}
	return nil
}

// apart says whether no place is in two ranges.
func (r slidingRanges) apart() bool {
	sorted := slices.SortedFunc(slices.Values(r), func(a, b [2]int) int { return a[0] - b[0] })
	for i := 1; i < len(sorted); i++ {
		if sorted[i][0] <= sorted[i-1][1] {
			return false
		}
	}
	return true
}

// check refuses a filter that is too large.
func (f *slidingFilter) check() error {
	if f == nil {
		return nil
	}
	if max(len(f.RoomTypes), len(f.NotRoomTypes), len(f.Spaces), len(f.Tags), len(f.NotTags)) > maxChoices || len(f.NameLike) > maxName {
		return matrix.InvalidParam("Each part of a filter has at most %d entries, and a name %d bytes.", maxChoices, maxName)
	}
	if f.Invite == nil {
		f.Invite = f.Invited
	}
	return nil
}
