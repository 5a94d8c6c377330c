package appservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"conclave/internal/matrix"
)

// Bounds of looking up what is in other networks.
const (
	lookupTime   = 10 * time.Second
	maxFound     = 1000 // entries of one service's answer
	maxInstances = 500
)

// InstanceID is what clients call a network of a service by, as third_party_instance_id.
func InstanceID(service, network string) string { return service + "|" + network }

// Protocols lists the protocols of all services, by name (client-server API, GET /thirdparty/protocols). A service that does
// not answer is left out.
func (c *Client) Protocols(ctx context.Context) map[string]json.RawMessage {
	names := map[string]bool{}
	for _, s := range c.services.list {
		for _, p := range s.Protocols {
			names[p] = true
		}
	}
	out := map[string]json.RawMessage{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for name := range names {
		all.Go(func() {
			if found := c.Protocol(ctx, name); found != nil {
				mu.Lock()
				defer mu.Unlock()
				out[name] = found
			}
		})
	}
	all.Wait()
	return out
}

// Protocol describes a protocol, nil if no service answers that it knows it. Where several services share it, it has the
// instances of all.
func (c *Client) Protocol(ctx context.Context, name string) json.RawMessage {
	var whole map[string]json.RawMessage
	instances := []json.RawMessage{}
	for service, raw := range c.each(ctx, c.speaking(name), "protocol/"+url.PathEscape(name), nil) {
		var one map[string]json.RawMessage
		if matrix.CheckObject(raw) != nil || json.Unmarshal(raw, &one) != nil {
			c.log.Warn("an application service describes its protocol by what is no object", "service", service.ID)
			continue
		}
		instances = append(instances, instancesOf(service, one["instances"])...)
		if whole == nil {
			whole = one
		}
	}
	if whole == nil {
		return nil
	}
	list, err := json.Marshal(instances)
	if err != nil {
		return nil
	}
	whole["instances"] = list
	out, err := json.Marshal(whole)
	if err != nil {
		return nil
	}
	return out
}

// instancesOf gives each instance of a protocol the ID that clients call it by.
func instancesOf(s *Service, raw json.RawMessage) (out []json.RawMessage) {
	var list []map[string]json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	for _, one := range list[:min(len(list), maxInstances)] {
		var network string
		if json.Unmarshal(one["network_id"], &network) != nil || network == "" {
			continue
		}
		one["instance_id"] = quoted(InstanceID(s.ID, network))
		if text, err := json.Marshal(one); err == nil {
			out = append(out, text)
		}
	}
	return out
}

func quoted(text string) json.RawMessage { return matrix.AppendString(nil, text) }

// speaking are the services that know a protocol and can be asked.
func (c *Client) speaking(protocol string) (list []*Service) {
	for _, s := range c.services.list {
		if s.Reachable() && slices.Contains(s.Protocols, protocol) {
			list = append(list, s)
		}
	}
	return list
}

// Lookup finds users or locations of a protocol (kind "user" or "location") by fields that its services define. Nothing found
// is M_NOT_FOUND.
func (c *Client) Lookup(ctx context.Context, kind, protocol string, fields url.Values) ([]json.RawMessage, error) {
	services := c.speaking(protocol)
	if len(services) == 0 {
		return nil, matrix.NotFound("There is no protocol %.64q here.", protocol)
	}
	return c.found(ctx, services, kind+"/"+url.PathEscape(protocol), fields)
}

// Reverse finds what a user or an alias (kind "user" or "location") is in other networks, asking the services in whose
// namespace it is.
func (c *Client) Reverse(ctx context.Context, kind, parameter, name string) ([]json.RawMessage, error) {
	var services []*Service
	for _, s := range c.services.list {
		mine := s.aliases.match(name, false)
		if kind == "user" {
			mine = c.services.MayBe(s, matrix.UserID(name))
		}
		if mine && s.Reachable() && len(s.Protocols) > 0 {
			services = append(services, s)
		}
	}
	return c.found(ctx, services, kind, url.Values{parameter: {name}})
}

// found puts together what services answer with a list.
func (c *Client) found(ctx context.Context, services []*Service, path string, query url.Values) ([]json.RawMessage, error) {
	var out []json.RawMessage
	for service, raw := range c.each(ctx, services, path, query) {
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			c.log.Warn("an application service answers a look-up with what is no list", "service", service.ID)
			continue
		}
		for _, item := range list[:min(len(list), maxFound)] {
			if matrix.CheckObject(item) == nil {
				out = append(out, item)
			}
		}
	}
	if len(out) == 0 {
		return nil, matrix.NotFound("Nothing was found.")
	}
	return out, nil
}

// each asks services the same, all at once, and gives the answers of those that have one, in their order.
func (c *Client) each(ctx context.Context, services []*Service, path string, query url.Values) func(func(*Service, []byte) bool) {
	answers := make([][]byte, len(services))
	var all sync.WaitGroup
	ctx, cancel := context.WithTimeout(ctx, min(lookupTime, c.callTime))
	defer cancel()
	for i, s := range services {
		if c.isSilent(s) {
			continue
		}
		all.Go(func() {
			a, err := c.do(ctx, s, call{
				method: http.MethodGet, path: "/_matrix/app/v1/thirdparty/" + path, old: "/_matrix/app/unstable/thirdparty/" + path, query: query,
			})
			switch {
			case err != nil:
				if errors.Is(err, errTimeout) {
					c.missed(s)
				}
				c.log.Info("an application service does not answer a look-up", "service", s.ID, "err", err)
			case a.ok():
				answers[i] = a.body
			case a.status != http.StatusNotFound:
				c.log.Info("an application service refuses a look-up", "service", s.ID, "err", fmt.Errorf("status %d", a.status))
			}
		})
	}
	all.Wait()
	return func(yield func(*Service, []byte) bool) {
		for i, s := range services {
			if answers[i] != nil && !yield(s, answers[i]) {
				return
			}
		}
	}
}
