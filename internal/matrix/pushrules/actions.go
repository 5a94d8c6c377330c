package pushrules

import (
	"encoding/json"
	"slices"
)

// Actions is the outcome of an evaluation. The zero value is: do nothing.
type Actions struct {
	Notify    bool
	Highlight bool    // only with Notify
	Tweaks    []Tweak // all of them, sound and highlight too, for the push gateway
	Kind      Kind    // of the rule that matched; empty if none did
	Rule      string  // its ID
}

// Tweak is an entry of the tweaks dictionary of a push notification. Value is JSON; nil where the rule gave none, which for highlight means true.
type Tweak struct {
	Name  string
	Value json.RawMessage
}

// Sound is the sound to play, or "".
func (a Actions) Sound() (sound string) {
	for _, t := range a.Tweaks {
		if t.Name == "sound" && json.Unmarshal(t.Value, &sound) != nil {
			sound = ""
		}
	}
	return sound
}

// List is the outcome in the form of a rule's actions.
func (a Actions) List() []any {
	list := []any{}
	if a.Notify {
		list = append(list, "notify")
	}
	for _, t := range a.Tweaks {
		tweak := map[string]any{"set_tweak": t.Name}
		if t.Value != nil {
			tweak["value"] = t.Value
		}
		list = append(list, tweak)
	}
	return list
}

// parseActions reads a rule's actions. Historical ("dont_notify", "coalesce") and unknown ones do nothing.
func parseActions(list []json.RawMessage) Actions {
	var a Actions
	highlight := false
	for _, raw := range list {
		var name string
		if json.Unmarshal(raw, &name) == nil {
			a.Notify = a.Notify || name == "notify"
			continue
		}
		m, err := members(raw)
		if err != nil || json.Unmarshal(m["set_tweak"], &name) != nil || name == "" {
			continue
		}
		a.Tweaks = append(a.Tweaks, Tweak{name, m["value"]})
		if name == "highlight" {
			highlight = m["value"] == nil || string(m["value"]) == "true"
		}
	}
	a.Highlight = a.Notify && highlight
	return a
}

// cleanActions checks a client's list of actions and leaves out the historical ones.
func cleanActions(list []json.RawMessage) ([]json.RawMessage, error) {
	if len(list) > MaxActions {
		return nil, invalid("at most %d actions", MaxActions)
	}
	out := make([]json.RawMessage, 0, len(list))
	for _, raw := range list {
		if len(raw) > MaxPattern {
			return nil, invalid("an action has at most %d bytes", MaxPattern)
		}
		var name string
		if json.Unmarshal(raw, &name) == nil && len(raw) > 0 && raw[0] == '"' {
			if name == "dont_notify" || name == "coalesce" {
				continue
			}
		} else if m, err := members(raw); err != nil || json.Unmarshal(m["set_tweak"], &name) != nil {
			return nil, invalid("an action is a word or an object with set_tweak")
		}
		out = append(out, slices.Clone(raw))
	}
	return out, nil
}
