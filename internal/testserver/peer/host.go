package peer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"conclave/internal/matrix"
)

// The server-server API's roots.
const (
	V1 = "/_matrix/federation/v1"
	V2 = "/_matrix/federation/v2"
)

// Spoiler changes an event on its way out of a Peer by an operation, named as in its path ("send_join", "state"); nil
// leaves it out.
type Spoiler func(operation string, e *Event) []byte

// Host makes the Peer answer for a room as an honest server in it does: joins, missing events, states, single events,
// auth chains and history. spoil, if it is not nil, makes it lie. A Peer can host several rooms.
func (r *Room) Host(spoil Spoiler) {
	h := &host{r, spoil}
	r.peer.mu.Lock()
	first := r.peer.hosted == nil
	r.peer.hosted = append(r.peer.hosted, h)
	r.peer.mu.Unlock()
	if first {
		r.peer.host()
	}
}

// host scripts the answers for the rooms that the Peer hosts.
func (p *Peer) host() {
	one := func(method, path string, answer func(*host, *Call) Reply) {
		p.Handle(method, path, func(c *Call) Reply {
			for _, h := range p.hosts() {
				if strings.Contains(c.Path, string(h.r.ID)) {
					return answer(h, c)
				}
			}
			return Refuse(http.StatusNotFound, "M_NOT_FOUND")
		})
	}
	one("GET", V1+"/make_join/{roomId}/{userId}", (*host).makeJoin)
	one("PUT", V2+"/send_join/{roomId}/{eventId}", (*host).sendJoin)
	one("POST", V1+"/get_missing_events/{roomId}", (*host).missing)
	one("GET", V1+"/state_ids/{roomId}", (*host).stateIDs)
	one("GET", V1+"/state/{roomId}", (*host).state)
	one("GET", V1+"/event_auth/{roomId}/{eventId}", (*host).eventAuth)
	one("GET", V1+"/backfill/{roomId}", (*host).backfill)
	p.Handle("GET", V1+"/event/{eventId}", func(c *Call) Reply {
		for _, h := range p.hosts() {
			if e := h.find(lastSegment(c.Path)); e != nil {
				return h.pdus("event", []*Event{e})
			}
		}
		return Refuse(http.StatusNotFound, "M_NOT_FOUND")
	})
}

// hosts are the rooms that the Peer hosts, the newest first.
func (p *Peer) hosts() []*host {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.hosted)
	slices.Reverse(all)
	return all
}

type host struct {
	r     *Room
	spoil Spoiler
}

// out are events as they leave by an operation.
func (h *host) out(operation string, events []*Event) []json.RawMessage {
	list := []json.RawMessage{}
	for _, e := range events {
		raw := e.JSON
		if h.spoil != nil {
			raw = h.spoil(operation, e)
		}
		if raw != nil {
			list = append(list, raw)
		}
	}
	return list
}

func lastSegment(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func (h *host) find(id string) *Event {
	for _, e := range h.r.Events() {
		if string(e.ID) == id {
			return e
		}
	}
	return nil
}

// before is the state before an event of the room, in which events follow one another in a line.
func (h *host) before(id string) (state []*Event) {
	at := map[[2]string]*Event{}
	var order [][2]string
	for _, e := range h.r.Events() {
		if string(e.ID) == id {
			break
		}
		kind, _ := e.Members["type"].(string)
		if key, ok := e.Members["state_key"].(string); ok {
			k := [2]string{kind, key}
			if at[k] == nil {
				order = append(order, k)
			}
			at[k] = e
		}
	}
	for _, k := range order {
		state = append(state, at[k])
	}
	return state
}

// chain is the auth chain of events.
func (h *host) chain(events []*Event) (chain []*Event) {
	seen := map[*Event]bool{}
	for next := events; len(next) > 0; next = next[1:] {
		auth, _ := next[0].Members["auth_events"].([]any)
		for _, ref := range auth {
			if e := h.find(referenced(ref)); e != nil && !seen[e] {
				seen[e] = true
				chain, next = append(chain, e), append(next[:len(next):len(next)], e)
			}
		}
	}
	return chain
}

// referenced is the event ID of a reference, whatever the room's version.
func referenced(ref any) string {
	if pair, ok := ref.([]any); ok && len(pair) > 0 {
		ref = pair[0]
	}
	id, _ := ref.(string)
	return id
}

// behind are the events before some, nearest first.
func (h *host) behind(from []string, stop map[string]bool, limit int) (found []*Event) {
	seen := map[string]bool{}
	for next := from; len(next) > 0 && len(found) < limit; next = next[1:] {
		e := h.find(next[0])
		if e == nil || seen[next[0]] || stop[next[0]] {
			continue
		}
		seen[next[0]] = true
		found = append(found, e)
		next = append(next[:len(next):len(next)], parents(e)...)
	}
	return found
}

func parents(e *Event) (ids []string) {
	prev, _ := e.Members["prev_events"].([]any)
	for _, ref := range prev {
		ids = append(ids, referenced(ref))
	}
	return ids
}

func (h *host) makeJoin(c *Call) Reply {
	user := lastSegment(c.Path)
	s := Spec{Type: "m.room.member", StateKey: &user, Sender: matrix.UserID(user), Content: map[string]any{"membership": "join"}}
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	var prev []matrix.EventID
	for _, e := range h.r.tips {
		prev = append(prev, e.ID)
	}
	return Reply{Body: map[string]any{"room_version": h.r.Version.String(), "event": map[string]any{
		"type": s.Type, "room_id": string(h.r.ID), "sender": user, "state_key": user, "content": s.Content, "depth": h.r.depth + 1,
		"origin": string(h.r.peer.Name), "origin_server_ts": time.Now().UnixMilli(),
		"prev_events": h.r.references(prev), "auth_events": h.r.references(h.r.authEvents(s)),
	}}}
}

func (h *host) sendJoin(c *Call) Reply {
	id := lastSegment(c.Path)
	e := h.r.Accept(c.Body, matrix.EventID(id))
	state := h.before(id)
	return Reply{Body: map[string]any{
		"origin": string(h.r.peer.Name), "members_omitted": false, "event": json.RawMessage(e.JSON), "state": h.out("send_join", state),
		"auth_chain": h.out("send_join", h.chain(append(state, e))),
	}}
}

func (h *host) missing(c *Call) Reply {
	var q struct {
		Earliest []string `json:"earliest_events"`
		Latest   []string `json:"latest_events"`
		Limit    int      `json:"limit"`
	}
	if json.Unmarshal(c.Body, &q) != nil {
		return Refuse(http.StatusBadRequest, "M_BAD_JSON")
	}
	stop := map[string]bool{}
	for _, id := range q.Earliest {
		stop[id] = true
	}
	var from []string
	for _, id := range q.Latest {
		if e := h.find(id); e != nil {
			from = append(from, parents(e)...)
		}
	}
	found := h.behind(from, stop, q.Limit)
	slices.Reverse(found)
	return Reply{Body: map[string]any{"events": h.out("get_missing_events", found)}}
}

func (h *host) at(c *Call) string {
	if ids := c.Query["event_id"]; len(ids) > 0 {
		return ids[0]
	}
	return ""
}

func (h *host) stateIDs(c *Call) Reply {
	ids := func(events []*Event) []string {
		list := []string{}
		for _, e := range events {
			list = append(list, string(e.ID))
		}
		return list
	}
	state := h.before(h.at(c))
	return Reply{Body: map[string]any{"pdu_ids": ids(state), "auth_chain_ids": ids(h.chain(state))}}
}

func (h *host) state(c *Call) Reply {
	state := h.before(h.at(c))
	return Reply{Body: map[string]any{"pdus": h.out("state", state), "auth_chain": h.out("state", h.chain(state))}}
}

func (h *host) eventAuth(c *Call) Reply {
	e := h.find(lastSegment(c.Path))
	if e == nil {
		return Refuse(http.StatusNotFound, "M_NOT_FOUND")
	}
	return Reply{Body: map[string]any{"auth_chain": h.out("event_auth", h.chain([]*Event{e}))}}
}

func (h *host) backfill(c *Call) Reply {
	limit, err := strconv.Atoi(c.Query["limit"][0])
	if err != nil {
		return Refuse(http.StatusBadRequest, "M_INVALID_PARAM")
	}
	return h.pdus("backfill", h.behind(c.Query["v"], nil, limit))
}

func (h *host) pdus(operation string, events []*Event) Reply {
	return Reply{Body: map[string]any{
		"origin": string(h.r.peer.Name), "origin_server_ts": time.Now().UnixMilli(), "pdus": h.out(operation, events),
	}}
}

// Verdicts are what a server under test answered about the events of a transaction: its error, "" for none.
type Verdicts map[matrix.EventID]string

// Send sends a transaction of raw items to a server under test, which has to answer 200.
func (p *Peer) Send(t testing.TB, to Target, txn string, pdus, edus [][]byte) Verdicts {
	t.Helper()
	a := p.Do(t, to, "PUT", V1+"/send/"+url.PathEscape(txn), Transaction(p.Name, pdus, edus))
	var body struct {
		PDUs map[matrix.EventID]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &body) != nil {
		t.Fatalf("transaction %s: %d %.500s", txn, a.Status, a.Body)
	}
	v := Verdicts{}
	for id, result := range body.PDUs {
		v[id] = result.Error
	}
	return v
}

// Transaction is the body of a transaction of raw items, however broken they are.
func Transaction(origin matrix.ServerName, pdus, edus [][]byte) []byte {
	join := func(items [][]byte) string {
		var b strings.Builder
		for i, item := range items {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(item)
		}
		return b.String()
	}
	return fmt.Appendf(nil, `{"origin":%q,"origin_server_ts":%d,"pdus":[%s],"edus":[%s]}`, origin, time.Now().UnixMilli(), join(pdus), join(edus))
}
