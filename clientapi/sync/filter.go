package sync

import (
	"encoding/json"
	"slices"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Filter says what a client wants to hear of (client-server API, "Filtering").
type Filter struct {
	EventFields []string    `json:"event_fields"`
	EventFormat string      `json:"event_format"`
	Presence    EventFilter `json:"presence"`
	AccountData EventFilter `json:"account_data"`
	Room        RoomFilter  `json:"room"`

	fields fieldTree // of EventFields; nil for all
}

// RoomFilter is the part of a filter for rooms.
type RoomFilter struct {
	Rooms        []string    `json:"rooms"`
	NotRooms     []string    `json:"not_rooms"`
	IncludeLeave bool        `json:"include_leave"`
	State        EventFilter `json:"state"`
	Timeline     EventFilter `json:"timeline"`
	Ephemeral    EventFilter `json:"ephemeral"`
	AccountData  EventFilter `json:"account_data"`
}

// EventFilter chooses events. Absent lists choose everything.
type EventFilter struct {
	Limit            *int     `json:"limit"`
	Types            []string `json:"types"`
	NotTypes         []string `json:"not_types"`
	Senders          []string `json:"senders"`
	NotSenders       []string `json:"not_senders"`
	Rooms            []string `json:"rooms"`
	NotRooms         []string `json:"not_rooms"`
	ContainsURL      *bool    `json:"contains_url"`
	LazyLoad         bool     `json:"lazy_load_members"`
	RedundantMembers bool     `json:"include_redundant_members"`
	ThreadUnread     bool     `json:"unread_thread_notifications"`
}

const (
	maxFilter       = 10 << 10 // bytes
	defaultTimeline = 10
	maxTimeline     = 500
)

// ParseFilter reads a filter, strictly and within its bounds.
func ParseFilter(raw []byte) (*Filter, error) {
	if len(raw) > maxFilter {
		return nil, matrix.TooLarge("A filter has at most %d bytes.", maxFilter)
	}
	f := &Filter{}
	if err := matrix.Decode(raw, f); err != nil {
		return nil, err
	}
	if f.EventFormat != "" && f.EventFormat != "client" && f.EventFormat != "federation" {
		return nil, matrix.InvalidParam("There is no event format %q.", f.EventFormat)
	}
	if f.EventFields != nil {
		f.fields = fieldsOf(f.EventFields)
	}
	return f, nil
}

// Keeps says whether an event of a room passes.
func (f *EventFilter) Keeps(row *store.EventRow) bool {
	return f.KeepsType(row.Event.Type()) && f.keepsSender(string(row.Event.Sender())) && f.keepsURL(row.Event) &&
		f.KeepsRoom(string(row.Event.RoomID()))
}

// KeepsType says whether a type of event passes; patterns may have asterisks.
func (f *EventFilter) KeepsType(typ string) bool {
	if f.Types != nil && !matchesAny(f.Types, typ) {
		return false
	}
	return !matchesAny(f.NotTypes, typ)
}

func (f *EventFilter) keepsSender(sender string) bool {
	return (f.Senders == nil || slices.Contains(f.Senders, sender)) && !slices.Contains(f.NotSenders, sender)
}

// KeepsRoom says whether a room passes.
func (f *EventFilter) KeepsRoom(room string) bool {
	return (f.Rooms == nil || slices.Contains(f.Rooms, room)) && !slices.Contains(f.NotRooms, room)
}

func (f *EventFilter) keepsURL(ev *matrix.Event) bool {
	if f.ContainsURL == nil {
		return true
	}
	url, ok := matrix.Get(ev.Content(), "url")
	return *f.ContainsURL == (ok && len(url) > 0 && url[0] == '"')
}

// keepsAll says whether nothing can be filtered out, so that events need not be looked at.
func (f *EventFilter) keepsAll() bool {
	return f.Types == nil && f.NotTypes == nil && f.Senders == nil && f.NotSenders == nil && f.Rooms == nil &&
		f.NotRooms == nil && f.ContainsURL == nil
}

func (f *EventFilter) limit() int {
	if f.Limit == nil {
		return defaultTimeline
	}
	return max(0, min(*f.Limit, maxTimeline))
}

func (f *RoomFilter) keeps(room string) bool {
	return (f.Rooms == nil || slices.Contains(f.Rooms, room)) && !slices.Contains(f.NotRooms, room)
}

// matchesAny compares with patterns in which * stands for any characters, in time linear in both lengths.
func matchesAny(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, text) })
}

func matches(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, parts[0])
	if !ok {
		return false
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
	return strings.HasSuffix(text, parts[last])
}

// List writes JSON values as a JSON array.
func List(items []json.RawMessage) json.RawMessage {
	size := 2
	for _, item := range items {
		size += len(item) + 1
	}
	out := append(make([]byte, 0, size), '[')
	for i, item := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, item...)
	}
	return append(out, ']')
}
