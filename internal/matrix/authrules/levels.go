package authrules

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"conclave/internal/matrix"
)

// Levels are the power levels in force in a state.
type Levels struct {
	matrix.PowerLevels
	creators []matrix.UserID // with infinite power (version 12)
}

// Infinite is the power of a version 12 room's creators, above every level.
const Infinite = math.MaxInt64

// UserLevel is a user's level.
func (l *Levels) UserLevel(user matrix.UserID) int64 {
	if slices.Contains(l.creators, user) {
		return Infinite
	}
	return l.PowerLevels.UserLevel(user)
}

// LevelsOf reads the power levels of a state: m.room.power_levels and m.room.create are looked at. Without the first
// the defaults hold, with 100 for the creator. One that cannot be read, which no version lets in, counts as absent.
func LevelsOf(v matrix.RoomVersion, s State) Levels {
	var l Levels
	create := s.Get("m.room.create", "")
	found := false
	if ev := s.Get("m.room.power_levels", ""); ev != nil {
		parsed, err := ev.PowerLevels()
		l.PowerLevels, found = parsed, err == nil
	}
	if !found {
		l.PowerLevels = matrix.DefaultPowerLevels()
	}
	if create == nil {
		return l
	}
	creators := matrix.Creators(create)
	switch {
	case v.CreatorsPrivileged():
		l.creators = creators
	case !found:
		l.Users = map[matrix.UserID]int64{}
		for _, id := range creators {
			l.Users[id] = 100
		}
	}
	return l
}

// namedLevels are the levels of the content that stand alone.
func namedLevels(p *matrix.PowerLevels) map[string]int64 {
	return map[string]int64{
		"users_default": p.UsersDefault, "events_default": p.EventsDefault, "state_default": p.StateDefault,
		"ban": p.Ban, "redact": p.Redact, "kick": p.Kick, "invite": p.Invite,
	}
}

// powerLevels is the rule on m.room.power_levels.
func (c *check) powerLevels(level int64) error {
	rule := func(sub int) string {
		if c.v.IntegerPowerLevels() {
			if !c.v.CreatorsPrivileged() && sub > 4 {
				sub--
			}
			return fmt.Sprintf("%d.%d", c.n.levels, sub)
		}
		return fmt.Sprintf("%d.%d", c.n.levels, max(1, sub-3))
	}
	next, err := c.e.PowerLevels()
	if err != nil {
		return refuse(rule(malformed(err)), "the power levels are not all numbers")
	}
	for id := range next.Users {
		if _, err := matrix.ParseUserID(string(id)); err != nil {
			return refuse(rule(3), "users has something that is not a user ID")
		}
		if slices.Contains(c.levels.creators, id) {
			return refuse(rule(4), "a creator's power cannot be set")
		}
	}
	had := c.state.Get("m.room.power_levels", "")
	if had == nil {
		return nil
	}
	now := c.levels.PowerLevels
	if err := c.namedChanges(rule(6), had, level); err != nil {
		return err
	}
	if err := levelChanges(rule(7), rule(8), now.Events, next.Events, level); err != nil {
		return err
	}
	if c.v.NotificationLevelsChecked() {
		if err := levelChanges(rule(7), rule(8), now.Notifications, next.Notifications, level); err != nil {
			return err
		}
	}
	return c.userChanges(rule(9), rule(10), now.Users, next.Users, level)
}

// malformed is the number of the rule, in version 12, on the part of the levels that cannot be read.
func malformed(err error) int {
	var bad *matrix.LevelError
	if errors.As(err, &bad) {
		switch bad.Part {
		case "events", "notifications":
			return 2
		case "users":
			return 3
		}
	}
	return 1
}

// namedChanges checks the levels that stand alone. One that is added or removed counts with what is written, not with
// its default: absence is no value that could be too high.
func (c *check) namedChanges(rule string, had *matrix.Event, level int64) error {
	names := slices.Sorted(maps.Keys(namedLevels(&c.levels.PowerLevels)))
	next, err := c.e.PowerLevels()
	if err != nil {
		return err
	}
	was, will := namedLevels(&c.levels.PowerLevels), namedLevels(&next)
	for _, name := range names {
		_, before := matrix.Get(had.Content(), name)
		_, after := matrix.Get(c.e.Content(), name)
		if before == after && was[name] == will[name] {
			continue
		}
		if before && was[name] > level {
			return refuse(rule+".1", "%s is above your own power", name)
		}
		if after && will[name] > level {
			return refuse(rule+".2", "%s would be above your own power", name)
		}
	}
	return nil
}

// levelChanges checks the entries of events or notifications.
func levelChanges(removed, added string, was, will map[string]int64, level int64) error {
	for name, old := range was {
		if now, stays := will[name]; (!stays || now != old) && old > level {
			return refuse(removed+".1", "the level of %.64s is above your own power", name)
		}
	}
	for name, now := range will {
		if old, had := was[name]; (!had || now != old) && now > level {
			return refuse(added+".1", "the level of %.64s would be above your own power", name)
		}
	}
	return nil
}

func (c *check) userChanges(removed, added string, was, will map[matrix.UserID]int64, level int64) error {
	for id, old := range was {
		if now, stays := will[id]; id != c.e.Sender() && (!stays || now != old) && old >= level {
			return refuse(removed+".1", "you may not change the power of somebody as powerful as you")
		}
	}
	for id, now := range will {
		if old, had := was[id]; (!had || now != old) && now > level {
			return refuse(added+".1", "you may not give more power than you have")
		}
	}
	return nil
}
