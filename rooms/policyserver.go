package rooms

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/matrix/authrules"
	"conclave/internal/store"
)

// Rooms may name a policy server, which has to recommend every event (server-server API, "Policy Servers"). Whether a
// room does is known at the door alone, so it is the door that asks for the recommendation, as it asks for the resolution
// of states: what needs the network is done outside, and the event comes again with it.

// policyKey is the one key ID of all policy servers.
const policyKey matrix.KeyID = "ed25519:policy_server"

// policyTime bounds the question, for which an event waits.
const policyTime = 15 * time.Second

// policyServer is who has to recommend a room's events.
type policyServer struct {
	via matrix.ServerName
	key ed25519.PublicKey
}

// needAgreement is what the door answers when an event lacks its recommendation.
type needAgreement struct{ by policyServer }

func (*needAgreement) Error() string { return "rooms: the policy server has to be asked first" }

// policyServer is the policy server that the room uses now, nil if it uses none.
func (d *draft) policyServer(ctx context.Context) (*policyServer, error) {
	row, err := d.lookup(ctx, authrules.StateKey{Type: "m.room.policy"})
	if err != nil || row == nil {
		return nil, err
	}
	via, named := matrix.GetString(row.Event.Content(), "via")
	text, keyed := matrix.GetString(row.Event.Content(), "public_keys", "ed25519")
	if _, err := matrix.ParseServerName(via); err != nil || !named || !keyed {
		return nil, nil //nolint:nilerr // nobody of such a server can be in the room
	}
	in := false
	err = d.r.db.Read(ctx, func(tx *store.Tx) (err error) {
		in, err = tx.ServerIn(d.ref.NID, matrix.ServerName(via)) // so that nobody is made to serve a room against its will
		return err
	})
	if err != nil || !in {
		return nil, err
	}
	key, err := matrix.DecodeBase64(text)
	if err != nil {
		key = nil // nobody's signature fits
	}
	return &policyServer{matrix.ServerName(via), key}, nil
}

// recommends says whether the policy server signed an event.
func (p *policyServer) recommends(ev *matrix.Event) bool {
	sig, ok := ev.Signature(p.via, policyKey)
	return ok && matrix.VerifyBytes(p.key, ev.SigningBytes(), sig) == nil
}

// isPolicy says whether an event is the one that names the policy server, which nobody is asked about.
func isPolicy(typ string, key *string) bool {
	return typ == "m.room.policy" && key != nil && *key == ""
}

// agreed says whether an event of another server, or of ours as it was built, is recommended. The first time that it is
// not the policy server has to be asked.
func (d *draft) agreed(ctx context.Context, in *incoming) (bool, error) {
	key, isState := in.event.StateKey()
	if isState && isPolicy(in.event.Type(), &key) {
		return true, nil
	}
	by, err := d.policyServer(ctx)
	if err != nil || by == nil || by.recommends(in.event) {
		return err == nil, err
	}
	if in.asked {
		return false, nil
	}
	return false, &needAgreement{*by}
}

// recommendation is an event with the signature of a policy server, after asking for it. What the event is signed with
// already stays: the policy server may be its origin.
func (r *Rooms) recommendation(ctx context.Context, by policyServer, ev *matrix.Event) (*matrix.Event, error) {
	if r.source == nil || r.own.IsOurs(by.via) {
		return nil, matrix.Forbidden("The room names this server as its policy server, which it is not.")
	}
	ctx, cancel := context.WithTimeout(ctx, policyTime)
	defer cancel()
	sig, err := r.source.PolicySignature(ctx, by.via, ev)
	if err != nil {
		return nil, toClient(err, by.via)
	}
	if ev, err = ev.SignedBy(by.via, policyKey, sig); err == nil && !by.recommends(ev) {
		err = errors.New("rooms: the policy server's signature does not fit")
	}
	if err != nil {
		return nil, toClient(err, by.via)
	}
	return ev, nil
}

// sendAgreed sends an event of ours into a room whose policy server has to be asked first: it is built on the room's
// present, signed there, and comes in as if from outside (law 1).
func (r *Rooms) sendAgreed(ctx context.Context, ref Ref, by policyServer, e *entry) (matrix.EventID, error) {
	d, err := r.detach(ctx, ref, *e.template)
	if err != nil {
		return "", err
	}
	ev, err := r.recommendation(ctx, by, d.event)
	if err != nil {
		return "", err
	}
	again := &entry{incoming: &incoming{event: ev, before: d.before, send: true, asked: true}, sender: e.sender, txn: e.txn, txnID: e.txnID}
	u := newUnit(again)
	if err := r.enterUnit(ctx, ref, u); err != nil {
		return "", err
	}
	if u.answered == "" && again.row.Flags.Has(store.FlagSoftFailed) {
		return "", matrix.Forbidden("The room does not allow this any more.")
	}
	return eventID(u, nil)
}
