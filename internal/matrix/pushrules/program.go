package pushrules

import (
	"crypto/sha256"
	"encoding/json"
)

// Program is a compiled set of rules, immutable and safe for concurrent use.
type Program struct {
	rules    []compiled
	print    [16]byte
	personal bool
}

// compiled is one enabled rule.
type compiled struct {
	conditions []condition
	actions    Actions
}

// Compile prepares a complete set of rules for evaluation. owner is the user's ID.
func Compile(r *Ruleset, owner string) *Program {
	p := &Program{}
	print := sha256.New()
	for _, kind := range Kinds() {
		for _, rule := range *r.List(kind) {
			if !rule.Enabled || len(p.rules) >= MaxRules {
				continue
			}
			c := compiled{actions: parseActions(rule.Actions)}
			c.actions.Kind, c.actions.Rule = kind, rule.ID
			conditions, text, personal := compileConditions(kind, rule, owner)
			c.conditions = conditions
			actions, err := json.Marshal(rule.Actions)
			if err != nil {
				actions = nil // not JSON: it does nothing, as parseActions sees it
			}
			print.Write([]byte(text2(string(kind), rule.ID, text, string(actions))))
			p.personal = p.personal || personal
			p.rules = append(p.rules, c)
		}
	}
	copy(p.print[:], print.Sum(nil))
	return p
}

// compileConditions returns what must hold for a rule; its kind brings conditions of its own.
func compileConditions(kind Kind, rule Rule, owner string) (list []condition, text string, personal bool) {
	switch kind {
	case Content:
		c, text, personal := compileMatch(bodyPath(), rule.Pattern, owner)
		return []condition{c}, text, personal
	case Room:
		return []condition{func(e *Event, _ Person) bool { return e.RoomID == rule.ID }}, "", false
	case Sender:
		return []condition{func(e *Event, _ Person) bool { return e.Sender == rule.ID }}, "", false
	}
	for i, raw := range rule.Conditions {
		if i == MaxConditions {
			return []condition{never}, "never", false
		}
		c, one, own := compileCondition(raw, owner)
		list = append(list, c)
		text += text2(one)
		personal = personal || own
	}
	return list, text, personal
}

// Fingerprint is equal for programs that do the same: then the outcome for one owner is the outcome for all, except for the users in Event.Names, for
// the event's sender, and where Personal says so.
func (p *Program) Fingerprint() [16]byte { return p.print }

// Personal reports whether the rules look for the owner's display name, so that they have to be evaluated for each owner.
func (p *Program) Personal() bool { return p.personal }

// Evaluate returns what an event does for the owner of the rules: the actions of the first rule that matches. One's own events do nothing.
func (p *Program) Evaluate(e *Event, owner Person) Actions {
	if e.Sender == owner.UserID {
		return Actions{}
	}
next:
	for i := range p.rules {
		for _, holds := range p.rules[i].conditions {
			if !holds(e, owner) {
				continue next
			}
		}
		return p.rules[i].actions
	}
	return Actions{}
}

// Evaluate compiles and evaluates rules once.
func Evaluate(rules *Ruleset, e *Event, owner Person) Actions {
	return Compile(rules, owner.UserID).Evaluate(e, owner)
}
