// Package pushrules decides what an event does for a user: whether it notifies, highlights, and with which sound (client-server API, module push).
//
// A Ruleset is what clients read and write, in JSON; Complete puts a user's own rules and the server's defaults together in order of priority. Compile turns
// it into a Program once; Program.Evaluate is then cheap, and programs of users with the same rules have the same Fingerprint, so an
// event need not be evaluated for each of them. An Event is a view of one event that remembers what was looked up, shared by all programs.
//
// Everything is pure, and every pattern is matched in time linear in the text, whatever users write.
package pushrules

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// Limits on one user's rules.
const (
	MaxRules      = 1000      // of all kinds together, defaults included
	MaxBytes      = 256 << 10 // of the rules in JSON
	MaxPattern    = 1024      // bytes of a pattern, key or value of a condition
	MaxConditions = 32        // of one rule
	MaxActions    = 32        // of one rule
	maxRuleID     = 255
)

// Kind is one of the five lists of rules.
type Kind string

// The kinds, in the order in which they are checked.
const (
	Override  Kind = "override"
	Content   Kind = "content"
	Room      Kind = "room"
	Sender    Kind = "sender"
	Underride Kind = "underride"
)

// Kinds lists them in that order.
func Kinds() []Kind { return []Kind{Override, Content, Room, Sender, Underride} }

// Ruleset is the "global" set of a user's rules. Within a kind the first matching rule wins.
type Ruleset struct {
	Override  []Rule `json:"override"`
	Content   []Rule `json:"content"`
	Room      []Rule `json:"room"`
	Sender    []Rule `json:"sender"`
	Underride []Rule `json:"underride"`
}

// Rule is one push rule. Conditions and actions are kept as the client wrote them: what this version does not know is handed back unchanged.
type Rule struct {
	ID         string            `json:"rule_id"`
	Default    bool              `json:"default"`
	Enabled    bool              `json:"enabled"`
	Conditions []json.RawMessage `json:"conditions,omitzero"` // of override and underride rules; none: always matches
	Pattern    string            `json:"pattern,omitempty"`   // of content rules
	Actions    []json.RawMessage `json:"actions"`
}

// List returns the rules of a kind, to read or to change; nil for an unknown kind.
func (r *Ruleset) List(kind Kind) *[]Rule {
	switch kind {
	case Override:
		return &r.Override
	case Content:
		return &r.Content
	case Room:
		return &r.Room
	case Sender:
		return &r.Sender
	case Underride:
		return &r.Underride
	}
	return nil
}

// master is the rule that stands above all others, even a user's own.
const master = ".m.rule.master"

// ownerMark stands in defaults.json where the user's ID belongs.
const ownerMark = "{user}"

//go:embed defaults.json
var defaultsJSON string

// Defaults returns the predefined rules of the specification for a user.
func Defaults(user string) *Ruleset {
	quoted, err := json.Marshal(user)
	if err != nil {
		panic("pushrules: a string does not encode: " + err.Error()) // impossible
	}
	text := strings.ReplaceAll(defaultsJSON, `"`+ownerMark+`"`, string(quoted))
	var r Ruleset
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		panic("pushrules: defaults.json: " + err.Error()) // a broken build, which any test finds
	}
	return &r
}

// Complete puts together what a user's rules are: the master rule, the user's own rules, then the server's defaults, as the user has
// enabled or changed the actions of each. stored holds rules as they were last written, defaults among them or not; nil is a user who
// never changed any. Defaults that this version does not know are dropped, new ones appear.
func Complete(stored *Ruleset, user string) *Ruleset {
	out := Defaults(user)
	if stored == nil {
		return out
	}
	for _, kind := range Kinds() {
		defaults, changed := out.List(kind), map[string]Rule{}
		var own []Rule
		for _, rule := range *stored.List(kind) {
			if strings.HasPrefix(rule.ID, ".") {
				changed[rule.ID] = rule
			} else {
				rule.Default = false
				own = append(own, rule)
			}
		}
		list := make([]Rule, 0, len(own)+len(*defaults))
		for i, rule := range *defaults {
			if was, ok := changed[rule.ID]; ok {
				rule.Enabled, rule.Actions = was.Enabled, was.Actions
			}
			if i == 0 && rule.ID != master {
				list = append(list, own...)
			}
			list = append(list, rule)
			if i == 0 && rule.ID == master {
				list = append(list, own...)
			}
		}
		if len(*defaults) == 0 {
			list = append(list, own...)
		}
		*defaults = list
	}
	return out
}

// FromAccountData reads a user's rules from the content of m.push_rules as it is stored and completes them. Rules were checked when they were
// written; content that cannot be read, or none, is that of a user who never changed any.
func FromAccountData(content []byte, user string) *Ruleset {
	var stored struct {
		Global *Ruleset `json:"global"`
	}
	if len(content) > 2*MaxBytes || json.Unmarshal(content, &stored) != nil {
		stored.Global = nil
	}
	return Complete(stored.Global, user)
}

// AccountData is the content of m.push_rules.
func (r *Ruleset) AccountData() ([]byte, error) {
	return json.Marshal(map[string]*Ruleset{"global": r})
}

// Parse reads a stored Ruleset, which was checked when it was written.
func Parse(data []byte) (*Ruleset, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("push rules of %d bytes, %d allowed", len(data), MaxBytes)
	}
	var r Ruleset
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("reading push rules: %w", err)
	}
	return &r, nil
}
