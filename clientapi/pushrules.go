package clientapi

import (
	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
)

var pushRuleRoutes = []Route{
	op(get, "/pushrules/", "getPushRules", Token, LimitRead, (*Server).getPushRules),
	op(get, "/pushrules/global/", "getPushRulesGlobal", Token, LimitRead, (*Server).getPushRulesGlobal),
	op(get, "/pushrules/global/:kind/:ruleId", "getPushRule", Token, LimitRead, (*Server).getPushRule),
	op(get, "/pushrules/global/:kind/:ruleId/actions", "getPushRuleActions", Token, LimitRead, (*Server).getPushRuleActions),
	op(get, "/pushrules/global/:kind/:ruleId/enabled", "isPushRuleEnabled", Token, LimitRead, (*Server).isPushRuleEnabled),
}

// rules are the caller's push rules: the specification's defaults, which the counts of unread messages follow too.
func (r *Request) rules() *pushrules.Ruleset {
	return pushrules.Complete(nil, string(r.Session.UserID))
}

// getPushRules is GET /pushrules/.
func (s *Server) getPushRules(r *Request) (any, error) {
	return map[string]*pushrules.Ruleset{"global": r.rules()}, nil
}

// getPushRulesGlobal is GET /pushrules/global/.
func (s *Server) getPushRulesGlobal(r *Request) (any, error) {
	return r.rules(), nil
}

// rule is the one that the path names.
func (r *Request) rule() (*pushrules.Rule, error) {
	rule, ok := r.rules().Find(pushrules.Kind(r.Param("kind")), r.Param("ruleId"))
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

// getPushRuleActions is GET /pushrules/global/{kind}/{ruleId}/actions.
func (s *Server) getPushRuleActions(r *Request) (any, error) {
	rule, err := r.rule()
	if err != nil {
		return nil, err
	}
	return map[string]any{"actions": rule.Actions}, nil
}

// isPushRuleEnabled is GET /pushrules/global/{kind}/{ruleId}/enabled.
func (s *Server) isPushRuleEnabled(r *Request) (any, error) {
	rule, err := r.rule()
	if err != nil {
		return nil, err
	}
	return map[string]bool{"enabled": rule.Enabled}, nil
}
