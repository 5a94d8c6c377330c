package sealed

import "time"

// Bounds on the life of a session. A room's settings can lower them, but not below the floors, and never raise them: a
// server that changes settings cannot make a session live longer.
const (
	mostMessages, fewestMessages = 100, 10
	longestLife, shortestLife    = 7 * 24 * time.Hour, time.Hour
)

// Usage is what is known of an outbound session when the next message is to be sent.
type Usage struct {
	Messages int64         // that it encrypted
	Age      time.Duration // since it began

	// The room's rotation_period_msgs and rotation_period_ms; nil where m.room.encryption has no such number.
	PeriodMessages, PeriodMS *int64

	Left         bool // somebody left, was removed, or lost an invitation, since the session began
	Limited      bool // memberships other than joins came with a sync that left events out
	LostHolder   bool // a device that was given the session would not be given it now
	RulesChanged bool // the room's encryption, history visibility or membership rules changed
}

// A Reason why a session must be replaced before the next message; empty if it need not be.
type Reason string

// Rotate decides whether a session has to be replaced by a fresh one, so that nobody who should no longer read does, and
// a stolen session opens little. It is a pure function: the same usage gives the same answer in both implementations.
func (u Usage) Rotate() Reason {
	switch {
	case u.Left:
		return "left"
	case u.Limited:
		return "limited"
	case u.LostHolder:
		return "lost_holder"
	case u.RulesChanged:
		return "rules_changed"
	case u.Messages >= clamp(u.PeriodMessages, fewestMessages, mostMessages):
		return "messages"
	case u.Age.Milliseconds() >= clamp(u.PeriodMS, shortestLife.Milliseconds(), longestLife.Milliseconds()):
		return "age"
	}
	return ""
}

func clamp(said *int64, least, most int64) int64 {
	if said == nil {
		return most
	}
	return min(max(*said, least), most)
}
