package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// keyDocument is a parsed and verified answer to getServerKey.
type keyDocument struct {
	server     matrix.ServerName
	canonical  []byte // with the signatures of the server itself and no others
	validUntil int64
	keys       serverKeys // ValidUntil and Expired as the document says
}

// parseKeyDocument reads a server's key document and verifies that the server signed it with a key that the document
// publishes. Every signature by such a key must hold.
func parseKeyDocument(raw []byte, server matrix.ServerName) (*keyDocument, error) {
	if len(raw) > maxDocBytes {
		return nil, errors.New("the key document is too large")
	}
	type published struct {
		Key     string `json:"key"`
		Expired int64  `json:"expired_ts"`
	}
	var doc struct {
		ServerName string                                `json:"server_name"`
		Verify     map[string]published                  `json:"verify_keys"`
		Old        map[string]published                  `json:"old_verify_keys"`
		ValidUntil int64                                 `json:"valid_until_ts"`
		Signatures map[string]map[string]json.RawMessage `json:"signatures"`
	}
	if err := matrix.Decode(raw, &doc); err != nil {
		return nil, err
	}
	if doc.ServerName != string(server) {
		return nil, errors.New("the key document is another server's")
	}
	if len(doc.Verify)+len(doc.Old) > maxKeysPerDoc {
		return nil, errors.New("the key document has too many keys")
	}
	d := &keyDocument{server: server, validUntil: doc.ValidUntil, keys: serverKeys{}}
	for id, p := range doc.Old {
		if p.Expired > 0 {
			d.add(id, p.Key, p.Expired)
		}
	}
	for id, p := range doc.Verify {
		d.add(id, p.Key, 0)
	}
	signed := 0
	for id := range doc.Signatures[string(server)] {
		key, ok := d.keys[matrix.KeyID(id)]
		if !ok || key.Expired != 0 {
			continue
		}
		if err := matrix.VerifyJSON(raw, string(server), key.ID, key.Public); err != nil {
			return nil, fmt.Errorf("the key document's signature by %s: %w", id, err)
		}
		signed++
	}
	if signed == 0 {
		return nil, errors.New("the key document is not signed by its server")
	}
	var err error
	d.canonical, err = onlySignedBy(raw, string(server))
	return d, err
}

// add takes a key that is well-formed; others are ignored, as unknown algorithms are.
func (d *keyDocument) add(id, key string, expired int64) {
	keyID, err := parseKeyID(id)
	if err != nil {
		return
	}
	public, err := matrix.DecodeBase64(key)
	if err != nil || matrix.CheckPublicKey(public) != nil {
		return
	}
	d.keys[keyID] = store.ServerKey{Server: d.server, ID: keyID, Public: public, ValidUntil: d.validUntil, Expired: expired}
}

// onlySignedBy removes the signatures of all others from a document, such as a notary's.
func onlySignedBy(raw []byte, server string) ([]byte, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, err
	}
	var signatures map[string]json.RawMessage
	if err := json.Unmarshal(members["signatures"], &signatures); err != nil {
		return nil, err
	}
	own, err := json.Marshal(map[string]json.RawMessage{server: signatures[server]})
	if err != nil {
		return nil, err
	}
	members["signatures"] = own
	out, err := json.Marshal(members)
	if err != nil {
		return nil, err
	}
	return matrix.StrictCanonicalJSON(out)
}

// fetch gets a server's keys from itself or, if it does not answer, from a notary, and keeps them. Callers at the same
// time share one attempt.
func (k *Keyring) fetch(ctx context.Context, server matrix.ServerName) (serverKeys, error) {
	return k.flights.Do(ctx, server, func(ctx context.Context) (serverKeys, error) {
		if !k.mayAsk(server) { // somebody else has just come back
			return k.known(ctx, server)
		}
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		doc, err := k.ask(ctx, server)
		if err != nil {
			k.asked(server, false)
			return nil, err
		}
		keys, err := k.keep(ctx, doc)
		k.asked(server, err == nil) // after the keys are there to be found
		return keys, err
	})
}

// ask gets a verified document, directly or from a notary.
func (k *Keyring) ask(ctx context.Context, server matrix.ServerName) (*keyDocument, error) {
	raw, err := limited(ctx, k.slotsFor(ctx, server), func() ([]byte, error) { return k.source.GetServerKey(ctx, server) })
	if err == nil {
		var doc *keyDocument
		if doc, err = parseKeyDocument(raw, server); err == nil {
			return doc, nil
		}
	}
	errs := []error{err}
	if errors.Is(err, ErrNotAllowed) || slices.Contains(k.notaries, server) {
		return nil, err // notaries are not asked about one another: each would wait for the other's key
	}
	for _, notary := range k.notaries {
		if k.own.IsOurs(notary) {
			continue
		}
		doc, err := k.askNotary(ctx, notary, server)
		if err == nil {
			return doc, nil
		}
		errs = append(errs, fmt.Errorf("notary %s: %w", notary, err))
	}
	return nil, errors.Join(errs...)
}

// slotsFor are the places for fetches from a server. Strangers have places of their own: a request in the name of any server
// makes us ask that one, and many which answer slowly must not keep us from asking those that we share rooms with.
func (k *Keyring) slotsFor(ctx context.Context, server matrix.ServerName) chan struct{} {
	shares := false
	err := k.db.Read(ctx, func(tx *store.Tx) (err error) {
		shares, err = tx.InAnyRoom(server)
		return err
	})
	if err != nil || !shares {
		return k.strangers
	}
	return k.slots
}

// limited runs fn once there is a free slot.
func limited[T any](ctx context.Context, slots chan struct{}, fn func() (T, error)) (T, error) {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return fn()
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// keep stores what a document says and returns all keys that are now known of its server. A key ID that is known with
// other bytes is refused: the old key stays, because events are signed with it.
func (k *Keyring) keep(ctx context.Context, doc *keyDocument) (serverKeys, error) {
	known, err := k.known(ctx, doc.server)
	if err != nil {
		return nil, err
	}
	now := k.now().UnixMilli()
	limit := now + maxKeyLife.Milliseconds()
	all := maps.Clone(known)
	if all == nil {
		all = serverKeys{}
	}
	var changed []store.ServerKey
	for id, key := range doc.keys {
		key.ValidUntil = min(key.ValidUntil, limit)
		if key.Expired != 0 {
			key.Expired = min(key.Expired, now) // it is not in use now
		}
		old, had := known[id]
		if had && !old.Public.Equal(key.Public) {
			k.log.Warn("a server publishes another key under a known ID; refused", "server", doc.server, "key", id)
			continue
		}
		if had && old.Expired != 0 && (key.Expired == 0 || old.Expired < key.Expired) {
			continue // a retired key does not come back
		}
		if had && old.Expired == 0 && key.Expired == 0 {
			key.ValidUntil = max(key.ValidUntil, old.ValidUntil) // an old document, by way of a notary, takes nothing back
		}
		all[id] = key
		changed = append(changed, key)
	}
	record := store.KeyDocument{Server: doc.server, JSON: doc.canonical, Fetched: now, ValidUntil: min(doc.validUntil, limit)}
	err = k.db.Write(ctx, func(tx *store.Tx) error {
		for _, key := range changed {
			if err := tx.PutServerKey(key); err != nil {
				return err
			}
		}
		return tx.PutKeyDocument(record)
	})
	if err != nil {
		return nil, fmt.Errorf("keeping keys: %w", err)
	}
	k.cache.Set(doc.server, all)
	return all, nil
}
