package rooms

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"

	"conclave/internal/matrix"
	"conclave/internal/matrix/pushrules"
	"conclave/internal/store"
)

// personalRules are the push rules of one user of ours who has other than the predefined ones, ready to be applied.
type personalRules struct {
	user    store.UserNID
	id      matrix.UserID
	program *pushrules.Program
	modes   pushrules.Modes
	size    int
}

// ruleBook keeps the rules of users in memory. Users with the predefined rules are remembered too, as nil.
type ruleBook struct {
	base   *pushrules.Program // the predefined rules, as they are for somebody whom no event can name
	nobody pushrules.Person

	mu      sync.Mutex
	changes uint64 // counts changes of anybody's rules: what was read before one is not kept
	known   map[store.UserNID]*personalRules
	bytes   int // of the rules in known, roughly
}

// Bounds of the rule book: when it is full it begins anew.
const (
	maxBookUsers = 20_000
	maxBookBytes = 32 << 20
)

func newRuleBook() *ruleBook {
	nobody := "@" + rand.Text()
	return &ruleBook{
		base: pushrules.Compile(pushrules.Defaults(nobody), nobody), nobody: pushrules.Person{UserID: nobody},
		known: map[store.UserNID]*personalRules{},
	}
}

// find returns what is known of users, and of whom nothing is known.
func (b *ruleBook) find(users []store.UserNID) (found []*personalRules, missing []store.UserNID, changes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, user := range users {
		if p, ok := b.known[user]; !ok {
			missing = append(missing, user)
		} else if p != nil {
			found = append(found, p)
		}
	}
	return found, missing, b.changes
}

// keep remembers rules that were read while no rules changed.
func (b *ruleBook) keep(changes uint64, read map[store.UserNID]*personalRules) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changes != changes {
		return
	}
	for user, p := range read {
		if len(b.known) >= maxBookUsers || b.bytes > maxBookBytes {
			clear(b.known)
			b.bytes = 0
		}
		b.known[user] = p
		if p != nil {
			b.bytes += p.size
		}
	}
}

func (b *ruleBook) forget(user store.UserNID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes++
	if p := b.known[user]; p != nil {
		b.bytes -= p.size
	}
	delete(b.known, user)
}

// rulesOf finds those of the users whose rules are not the predefined ones.
func (r *Rooms) rulesOf(ctx context.Context, users []store.UserNID) ([]*personalRules, error) {
	found, missing, changes := r.book.find(users)
	if len(missing) == 0 {
		return found, nil
	}
	read := map[store.UserNID]*personalRules{}
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		clear(read)
		for _, user := range missing {
			read[user] = nil
		}
		return tx.PushRules(missing, func(user store.UserNID, id matrix.UserID, content string) {
			read[user] = compileRules(user, id, content)
		})
	})
	if err != nil {
		return nil, err
	}
	r.book.keep(changes, read)
	for _, user := range missing {
		if p := read[user]; p != nil {
			found = append(found, p)
		}
	}
	return found, nil
}

// compileRules prepares rules as they are stored.
func compileRules(user store.UserNID, id matrix.UserID, content string) *personalRules {
	rules := pushrules.FromAccountData([]byte(content), string(id))
	program := pushrules.Compile(rules, string(id))
	return &personalRules{user: user, id: id, program: program, modes: pushrules.ModesOf(rules, program), size: 4 * len(content)}
}

// RulesChanged says that a user's push rules have changed: what comes from now on is judged by the new ones.
func (r *Rooms) RulesChanged(ctx context.Context, user store.UserNID) error {
	r.book.forget(user)
	var joined []store.RoomNID
	err := r.db.Read(ctx, func(tx *store.Tx) error {
		joined = nil
		return tx.MembershipsOf(user, func(m store.MemberRow) {
			if m.Membership == store.Join {
				joined = append(joined, m.Room)
			}
		})
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil { // then in which room ever
		for _, rm := range r.rooms {
			rm.rulesMoved.Store(true)
		}
		return err
	}
	for _, nid := range joined {
		if rm := r.rooms[nid]; rm != nil {
			rm.rulesMoved.Store(true)
		}
	}
	return nil
}

// RulesMoved is RulesChanged for changes that another node may have made. It returns at once.
func (r *Rooms) RulesMoved(user store.UserNID) {
	r.book.forget(user)
	r.work.Go("push rules", func(ctx context.Context) error {
		if err := r.RulesChanged(ctx, user); err != nil && ctx.Err() == nil {
			r.log.Error("reading whom a change of push rules concerns failed", "err", err)
		}
		return nil
	})
}

// audience are the joined users of a room whose push rules are not the predefined ones. It is immutable.
type audience struct {
	people []*personalRules
}

// audience reads who they are, unless the head knows. Nearly always that is nobody.
func (d *draft) audience(ctx context.Context) (*audience, error) {
	if d.head.audience != nil {
		return d.head.audience, nil
	}
	var users []store.UserNID
	err := d.r.db.Read(ctx, func(tx *store.Tx) error {
		users = nil
		return tx.PushPeople(d.ref.NID, func(user store.UserNID) { users = append(users, user) })
	})
	if err != nil {
		return nil, err
	}
	people, err := d.r.rulesOf(ctx, users)
	if err != nil {
		return nil, err
	}
	d.head.audience = &audience{people}
	return d.head.audience, d.moved(ctx, d.out.Members)
}

// moved brings the audience up to date with changes of the members that this draft makes.
func (d *draft) moved(ctx context.Context, changes []store.MemberChange) error {
	if len(changes) > 0 {
		d.head.joined = 0
	}
	if d.head.audience == nil || len(changes) == 0 {
		return nil
	}
	var came []store.UserNID
	for _, c := range changes {
		if c.Membership == store.Join {
			came = append(came, c.Member.NID)
		}
	}
	rules, err := d.r.rulesOf(ctx, came)
	if err != nil {
		return err
	}
	gone := func(p *personalRules) bool {
		return slices.ContainsFunc(changes, func(c store.MemberChange) bool { return c.Member.NID == p.user })
	}
	people := append(slices.DeleteFunc(slices.Clone(d.head.audience.people), gone), rules...)
	d.head.audience = &audience{people}
	return nil
}

// rulesView is an event's form for push rules: the members of its client form.
func rulesView(ev *matrix.Event) func(path ...string) ([]byte, bool) {
	return func(path ...string) ([]byte, bool) {
		if len(path) == 0 {
			return nil, false
		}
		var value string
		switch path[0] {
		case "content":
			return matrix.Get(ev.Content(), path[1:]...)
		case "origin_server_ts":
			return matrix.Get(ev.JSON(), path...)
		case "type":
			value = ev.Type()
		case "sender":
			value = string(ev.Sender())
		case "room_id":
			value = string(ev.RoomID())
		case "event_id":
			value = string(ev.ID())
		case "state_key":
			key, ok := ev.StateKey()
			if !ok {
				return nil, false
			}
			value = key
		default:
			return nil, false
		}
		return matrix.AppendString(make([]byte, 0, len(value)+2), value), len(path) == 1
	}
}
