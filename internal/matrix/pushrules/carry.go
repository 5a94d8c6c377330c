package pushrules

import (
	"encoding/json"
	"strings"
)

// CarryOver gives a room, in a complete set, the user's own rules of another room that it replaces: those of kind room, and those with a condition
// that names the room. The old room keeps its rules. It reports whether there were any that the room does not have yet.
func (r *Ruleset) CarryOver(from, to string) (changed bool, err error) {
	for _, kind := range []Kind{Override, Room, Underride} {
		for _, rule := range append([]Rule(nil), *r.List(kind)...) {
			carried, ok := carry(kind, rule, from, to)
			if !ok || strings.HasPrefix(rule.ID, ".") {
				continue
			}
			if _, has := r.Find(kind, carried.ID); has {
				continue
			}
			if err := r.Put(kind, carried, "", rule.ID); err != nil {
				return changed, err
			}
			if err := r.SetEnabled(kind, carried.ID, rule.Enabled); err != nil {
				return changed, err
			}
			changed = true
		}
	}
	return changed, nil
}

// carry is a rule of one room made for another; ok is false if it names no room.
func carry(kind Kind, rule Rule, from, to string) (out Rule, ok bool) {
	out = Rule{ID: to, Actions: rule.Actions}
	if kind == Room {
		return out, rule.ID == from
	}
	if rule.ID != from {
		out.ID = rule.ID + " " + to
	}
	for _, raw := range rule.Conditions {
		m, err := members(raw)
		if err == nil && readScalar(m["key"]).text == "room_id" {
			for _, name := range []string{"pattern", "value"} {
				if readScalar(m[name]) == (scalar{'s', from}) {
					if m[name], err = json.Marshal(to); err == nil {
						ok = true
					}
				}
			}
			if again, err := json.Marshal(m); err == nil {
				raw = again
			}
		}
		out.Conditions = append(out.Conditions, raw)
	}
	return out, ok
}
