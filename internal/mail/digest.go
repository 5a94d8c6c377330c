package mail

import "strings"

// MaxWaitingRooms is how many rooms a digest names; of the others it says how many there are.
const MaxWaitingRooms = 20

// Waiting is what a mail of kind Digest tells of; it stands in the mail's row until it is sent. What the messages say is not
// among it.
type Waiting struct {
	Pusher int64         `json:"pusher"` // whose mail it is: once that one is gone, nobody wants it
	Token  string        `json:"token"`  // ends the pusher
	Rooms  []WaitingRoom `json:"rooms"`
	More   int           `json:"more,omitempty"` // rooms that are not named
}

// WaitingRoom is a room in which something is unread, or to which there is an invitation.
type WaitingRoom struct {
	Name     string   `json:"name,omitempty"` // "" if it has none
	Invited  bool     `json:"invited,omitempty"`
	Unread   int64    `json:"unread"`
	Mentions int64    `json:"mentions,omitempty"`
	From     []string `json:"from"`             // who wrote last, a few of them
	Others   int      `json:"others,omitempty"` // how many wrote besides
}

// Writers are the names of who wrote.
func (r WaitingRoom) Writers() string { return strings.Join(r.From, ", ") }

// shown is the same as a mail shows it. Strangers who invite somebody choose names: mail programs must not make a link of
// something like evil.example, so an invisible sign that joins words stands behind each dot.
func (w *Waiting) shown() *Waiting {
	if w == nil {
		return nil
	}
	name := func(s string) string { return strings.ReplaceAll(shown(s), ".", ".\u2060") }
	out := *w
	out.Rooms = nil
	for _, r := range w.Rooms {
		r.Name = name(r.Name)
		from := r.From
		r.From = nil
		for _, s := range from {
			r.From = append(r.From, name(s))
		}
		out.Rooms = append(out.Rooms, r)
	}
	return &out
}
