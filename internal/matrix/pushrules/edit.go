package pushrules

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Errors of changes. ErrInvalid wraps a sentence for the client.
var (
	ErrNotFound = errors.New("there is no such push rule")
	ErrAnchor   = errors.New("before/after rule not found") // a 400, where ErrNotFound is a 404
	ErrInvalid  = errors.New("invalid push rule")
	ErrTooMany  = errors.New("too many push rules")
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// Find returns a rule of a complete set.
func (r *Ruleset) Find(kind Kind, id string) (*Rule, bool) {
	list := r.List(kind)
	if list == nil {
		return nil, false
	}
	i := slices.IndexFunc(*list, func(rule Rule) bool { return rule.ID == id })
	if i < 0 {
		return nil, false
	}
	return &(*list)[i], true
}

// Put adds or replaces a user's own rule in a complete set. A new rule is enabled and comes first among the user's own, or stands directly before
// or after another of the user's own rules of its kind; a replaced one keeps its place unless one is given, and whether it is enabled.
func (r *Ruleset) Put(kind Kind, rule Rule, before, after string) error {
	list := r.List(kind)
	if list == nil {
		return ErrNotFound
	}
	rule, err := checkRule(kind, rule)
	if err != nil {
		return err
	}
	rule.Enabled = true
	rest := slices.Clone(*list)
	at := slices.IndexFunc(rest, func(other Rule) bool { return other.ID == rule.ID })
	if at >= 0 {
		rule.Enabled = rest[at].Enabled
		rest = slices.Delete(rest, at, at+1)
	} else if at = 0; len(rest) > 0 && rest[0].ID == master {
		at = 1
	}
	if anchor, offset := before, 0; anchor != "" || after != "" {
		if anchor == "" { // before counts if both are given
			anchor, offset = after, 1
		}
		i := slices.IndexFunc(rest, func(other Rule) bool { return other.ID == anchor })
		if i < 0 || strings.HasPrefix(anchor, ".") {
			return fmt.Errorf("%w: %s", ErrAnchor, anchor)
		}
		at = i + offset
	}
	changed := *r
	*changed.List(kind) = slices.Insert(rest, at, rule)
	if err := changed.checkSize(); err != nil {
		return err
	}
	*r = changed
	return nil
}

// Delete removes a user's own rule.
func (r *Ruleset) Delete(kind Kind, id string) error {
	rule, ok := r.Find(kind, id)
	if !ok {
		return ErrNotFound
	}
	if rule.Default {
		return invalid("the rule %s is predefined; it can be disabled, not deleted", id)
	}
	list := r.List(kind)
	*list = slices.DeleteFunc(slices.Clone(*list), func(rule Rule) bool { return rule.ID == id })
	return nil
}

// SetActions changes what a rule does, predefined ones too.
func (r *Ruleset) SetActions(kind Kind, id string, actions []json.RawMessage) error {
	rule, ok := r.Find(kind, id)
	if !ok {
		return ErrNotFound
	}
	cleaned, err := cleanActions(actions)
	if err != nil {
		return err
	}
	was := rule.Actions
	rule.Actions = cleaned
	if err := r.checkSize(); err != nil {
		rule.Actions = was
		return err
	}
	return nil
}

// SetEnabled switches a rule on or off, predefined ones too.
func (r *Ruleset) SetEnabled(kind Kind, id string, enabled bool) error {
	rule, ok := r.Find(kind, id)
	if !ok {
		return ErrNotFound
	}
	rule.Enabled = enabled
	return nil
}

func (r *Ruleset) checkSize() error {
	n := 0
	for _, kind := range Kinds() {
		n += len(*r.List(kind))
	}
	if n > MaxRules {
		return fmt.Errorf("%w: at most %d", ErrTooMany, MaxRules)
	}
	data, err := json.Marshal(r)
	if err != nil {
		return invalid("it is not valid JSON")
	}
	if len(data) > MaxBytes {
		return fmt.Errorf("%w: at most %d bytes", ErrTooMany, MaxBytes)
	}
	return nil
}

// checkRule checks a rule that a client wrote and returns it in the form it is kept in: with the members of its kind alone.
func checkRule(kind Kind, rule Rule) (Rule, error) {
	switch {
	case rule.ID == "" || len(rule.ID) > maxRuleID:
		return rule, invalid("its ID must have 1 to %d bytes", maxRuleID)
	case strings.HasPrefix(rule.ID, "."):
		return rule, invalid("IDs that begin with a dot are for predefined rules")
	case strings.ContainsAny(rule.ID, "/\\\x00"):
		return rule, invalid("its ID must not hold slashes")
	case kind == Content && (rule.Pattern == "" || len(rule.Pattern) > MaxPattern):
		return rule, invalid("a content rule needs a pattern of 1 to %d bytes", MaxPattern)
	case len(rule.Conditions) > MaxConditions:
		return rule, invalid("at most %d conditions", MaxConditions)
	}
	actions, err := cleanActions(rule.Actions)
	if err != nil {
		return rule, err
	}
	out := Rule{ID: rule.ID, Actions: actions}
	switch kind {
	case Content:
		out.Pattern = rule.Pattern
	case Override, Underride:
		out.Conditions = make([]json.RawMessage, 0, len(rule.Conditions))
		for _, c := range rule.Conditions {
			if _, err := members(c); err != nil || len(c) > 3*MaxPattern {
				return rule, invalid("a condition must be an object of at most %d bytes", 3*MaxPattern)
			}
			out.Conditions = append(out.Conditions, slices.Clone(c))
		}
	}
	return out, nil
}

// members reads a JSON object by exact names; encoding/json would let "Kind" pass for "kind" in a struct.
func members(data []byte) (map[string]json.RawMessage, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errors.New("not an object")
	}
	return m, nil
}
