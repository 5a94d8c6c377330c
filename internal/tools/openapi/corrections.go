package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// correction puts a slip of the specification's documents right: at a place in spec.json, what stands there (was, JSON
// text; "" is nothing) becomes what is meant (is).
type correction struct{ at, was, is, reason string }

var corrections = []correction{
	{at: "/$defs/client-server.definitions.errors.error/required", was: `["errcode"]`, is: `["errcode","error"]`,
		reason: `the text has both in every "standard error response"`},
	{at: "/client/uploadCrossSigningKeys/answers/401", is: `{"types":["application/json"],"json":{"$ref":"#/$defs/client-server.definitions.auth_response"}}`,
		reason: "the description says that user-interactive authentication is asked for, and this answer is how"},
	{at: "/client/getRoomStateWithKey/answers/200/json", was: `{"oneOf":[{"type":"object"},{"$ref":"#/$defs/event-schemas.schema.core-event-schema.state_event"}]}`,
		is:     `{"anyOf":[{"type":"object"},{"$ref":"#/$defs/event-schemas.schema.core-event-schema.state_event"}]}`,
		reason: "an event is an object as well, so it would fit both, which oneOf forbids"},
	{at: "/$defs/server-server.definitions.invite_event/allOf", was: `[{"properties":{"content":{"properties":{"membership":{"type":"string"}},"required":["membership"],"type":"object"},"origin":{"type":"string"},"origin_server_ts":{"format":"int64","type":"integer"},"sender":{"type":"string"},"state_key":{"type":"string"},"type":{"type":"string"}},"required":["state_key","sender","origin","origin_server_ts","type","content"],"type":"object"}]`,
		is:     `[{"properties":{"content":{"properties":{"membership":{"type":"string"}},"required":["membership"],"type":"object"},"origin_server_ts":{"format":"int64","type":"integer"},"sender":{"type":"string"},"state_key":{"type":"string"},"type":{"type":"string"}},"required":["state_key","sender","origin_server_ts","type","content"],"type":"object"}]`,
		reason: "the event goes back as it came, and no room version's event format has origin any more"},
}

func (c correction) apply(spec object) error {
	cut := strings.LastIndex(c.at, "/")
	parent, key := c.at[:cut], c.at[cut+1:]
	found, err := at(spec, parent)
	if err != nil {
		return fmt.Errorf("the correction at %s: %w", c.at, err)
	}
	o, ok := found.(object)
	if !ok {
		return fmt.Errorf("the correction at %s: that is in no object", c.at)
	}
	was := ""
	if value, there := o[key]; there {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		was = string(text)
	}
	if was != c.was {
		return fmt.Errorf("the correction at %s is for %s and finds %s: the specification has changed", c.at, c.was, was)
	}
	if c.is == "" {
		delete(o, key)
		return nil
	}
	var is any
	if err := json.Unmarshal([]byte(c.is), &is); err != nil {
		return fmt.Errorf("the correction at %s: %w", c.at, err)
	}
	o[key] = is
	return nil
}
