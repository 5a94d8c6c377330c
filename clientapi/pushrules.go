package clientapi

import (
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
)

var pushRuleRoutes = []Route{
	op(get, "/pushrules/", "getPushRules", Token, LimitRead, (*Server).getPushRules),
	op(get, "/pushrules/global/", "getPushRulesGlobal", Token, LimitRead, (*Server).getPushRulesGlobal),
	op(get, "/pushrules/global/:kind/:ruleId", "getPushRule", Token, LimitRead, (*Server).getPushRule),
	op(put, "/pushrules/global/:kind/:ruleId", "setPushRule", Token, LimitChange, (*Server).setPushRule),
	op(del, "/pushrules/global/:kind/:ruleId", "deletePushRule", Token, LimitChange, (*Server).deletePushRule),
	op(get, "/pushrules/global/:kind/:ruleId/actions", "getPushRuleActions", Token, LimitRead, (*Server).getPushRuleActions),
	op(put, "/pushrules/global/:kind/:ruleId/actions", "setPushRuleActions", Token, LimitChange, (*Server).setPushRuleActions),
	op(get, "/pushrules/global/:kind/:ruleId/enabled", "isPushRuleEnabled", Token, LimitRead, (*Server).isPushRuleEnabled),
	op(put, "/pushrules/global/:kind/:ruleId/enabled", "setPushRuleEnabled", Token, LimitChange, (*Server).setPushRuleEnabled),
}

// rules are the caller's push rules.
func (r *Request) rules() (*pushrules.Ruleset, error) {
	return r.server.PushRules.Of(r.Ctx(), r.Session.User, r.Session.UserID)
}

// changeRules lets a function change them. The answer is empty.
func (r *Request) changeRules(change func(*pushrules.Ruleset) error) (any, error) {
	return nil, r.server.PushRules.Change(r.Ctx(), r.Session.User, r.Session.UserID, change)
}

// ruleName is the kind and ID of the rule that the path names.
func (r *Request) ruleName() (pushrules.Kind, string, error) {
	kind := pushrules.Kind(r.Param("kind"))
	if (&pushrules.Ruleset{}).List(kind) == nil {
		return "", "", matrix.InvalidParam("There is no kind %.64q of push rules.", string(kind))
	}
	return kind, r.Param("ruleId"), nil
}

// getPushRules is GET /pushrules/.
func (s *Server) getPushRules(r *Request) (any, error) {
	rules, err := r.rules()
	return map[string]*pushrules.Ruleset{"global": rules}, err
}

// getPushRulesGlobal is GET /pushrules/global/.
func (s *Server) getPushRulesGlobal(r *Request) (any, error) {
	return r.rules()
}

// rule is the one that the path names.
func (r *Request) rule() (*pushrules.Rule, error) {
	rules, err := r.rules()
	if err != nil {
		return nil, err
	}
	rule, ok := rules.Find(pushrules.Kind(r.Param("kind")), r.Param("ruleId"))
	if !ok {
		return nil, matrix.NotFound("There is no such push rule.")
	}
	return rule, nil
}

// getPushRule is GET /pushrules/global/{kind}/{ruleId}.
func (s *Server) getPushRule(r *Request) (any, error) {
	rule, err := r.rule()
	return rule, err
}

// setPushRule is PUT /pushrules/global/{kind}/{ruleId}.
func (s *Server) setPushRule(r *Request) (any, error) {
	kind, id, err := r.ruleName()
	if err != nil {
		return nil, err
	}
	var body struct {
		Actions    []json.RawMessage `json:"actions"`
		Conditions []json.RawMessage `json:"conditions"`
		Pattern    string            `json:"pattern"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Actions == nil {
		return nil, matrix.MissingParam("A push rule needs actions, which may be an empty list.")
	}
	rule := pushrules.Rule{ID: id, Actions: body.Actions, Conditions: body.Conditions, Pattern: body.Pattern}
	before, after := r.QueryParam("before"), r.QueryParam("after")
	return r.changeRules(func(rules *pushrules.Ruleset) error { return rules.Put(kind, rule, before, after) })
}

// deletePushRule is DELETE /pushrules/global/{kind}/{ruleId}.
func (s *Server) deletePushRule(r *Request) (any, error) {
	kind, id, err := r.ruleName()
	if err != nil {
		return nil, err
	}
	return r.changeRules(func(rules *pushrules.Ruleset) error { return rules.Delete(kind, id) })
}

// getPushRuleActions is GET /pushrules/global/{kind}/{ruleId}/actions.
func (s *Server) getPushRuleActions(r *Request) (any, error) {
	rule, err := r.rule()
	if err != nil {
		return nil, err
	}
	return map[string]any{"actions": rule.Actions}, nil
}

// setPushRuleActions is PUT /pushrules/global/{kind}/{ruleId}/actions.
func (s *Server) setPushRuleActions(r *Request) (any, error) {
	kind, id, err := r.ruleName()
	if err != nil {
		return nil, err
	}
	var body struct {
		Actions []json.RawMessage `json:"actions"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Actions == nil {
		return nil, matrix.MissingParam("There must be actions, which may be an empty list.")
	}
	return r.changeRules(func(rules *pushrules.Ruleset) error { return rules.SetActions(kind, id, body.Actions) })
}

// isPushRuleEnabled is GET /pushrules/global/{kind}/{ruleId}/enabled.
func (s *Server) isPushRuleEnabled(r *Request) (any, error) {
	rule, err := r.rule()
	if err != nil {
		return nil, err
	}
	return map[string]bool{"enabled": rule.Enabled}, nil
}

// setPushRuleEnabled is PUT /pushrules/global/{kind}/{ruleId}/enabled.
func (s *Server) setPushRuleEnabled(r *Request) (any, error) {
	kind, id, err := r.ruleName()
	if err != nil {
		return nil, err
	}
	var body struct {
		Enabled *bool `json:"enabled"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Enabled == nil {
		return nil, matrix.MissingParam("There must be enabled, true or false.")
	}
	return r.changeRules(func(rules *pushrules.Ruleset) error { return rules.SetEnabled(kind, id, *body.Enabled) })
}
