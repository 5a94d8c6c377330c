package federation

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"conclave/internal/matrix"
)

// policyServerKey signs for a policy server and is no server's key, even if it stands among a server's signatures.
const policyServerKey matrix.KeyID = "ed25519:policy_server"

// maxSignatures is how many signatures of one server on one event are looked at.
const maxSignatures = 8

// VerifyEvent checks the signatures of all servers that must have signed an event, with keys valid at the time when it
// says it was made (room versions from 5 on). Nothing else about the event is checked.
func (k *Keyring) VerifyEvent(ctx context.Context, e *matrix.Event) error {
	return k.VerifyEvents(ctx, []*matrix.Event{e})[0]
}

// VerifyEvents is VerifyEvent for many events at once: each is judged on its own, keys are read and fetched together.
func (k *Keyring) VerifyEvents(ctx context.Context, events []*matrix.Event) []error {
	errs := make([]error, len(events))
	if err := k.prepare(ctx, events); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	workers := min(runtime.GOMAXPROCS(0), (len(events)+15)/16)
	if workers <= 1 {
		for i, e := range events {
			errs[i] = k.verifyEvent(ctx, e)
		}
		return errs
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(events); i += workers {
				errs[i] = k.verifyEvent(ctx, events[i])
			}
		})
	}
	wg.Wait()
	return errs
}

// prepare fetches, all at once, the keys that the events need and that are not held.
func (k *Keyring) prepare(ctx context.Context, events []*matrix.Event) error {
	needs := map[matrix.ServerName][]need{}
	for _, e := range events {
		for _, server := range e.RequiredSigners() {
			if k.own.IsOurs(server) {
				continue
			}
			for _, id := range signatureKeys(e, server) {
				n := need{id, e.OriginServerTS(), e.Version().EnforceKeyValidity()}
				if !slices.Contains(needs[server], n) && len(needs[server]) < 256 {
					needs[server] = append(needs[server], n)
				}
			}
		}
	}
	servers := make([]matrix.ServerName, 0, len(needs))
	for server := range needs {
		servers = append(servers, server)
	}
	known, err := k.knownOf(ctx, servers)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for server, list := range needs {
		unmet := slices.ContainsFunc(list, func(n need) bool { return !n.metBy(known[server]) })
		if !unmet || !k.mayAsk(server) {
			continue
		}
		wg.Go(func() {
			if _, err := k.fetch(ctx, server); err != nil {
				k.log.Debug("fetching keys failed", "server", server, "err", err)
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// signatureKeys are the keys by which a server signed an event, as far as they could be its own.
func signatureKeys(e *matrix.Event, server matrix.ServerName) []matrix.KeyID {
	var ids []matrix.KeyID
	for _, id := range e.SignatureKeys(server) {
		if _, err := parseKeyID(string(id)); err == nil && id != policyServerKey && len(ids) < maxSignatures {
			ids = append(ids, id)
		}
	}
	return ids
}

func (k *Keyring) verifyEvent(ctx context.Context, e *matrix.Event) error {
	message := e.SigningBytes()
	for _, server := range e.RequiredSigners() {
		if err := k.verifySigner(ctx, e, server, message); err != nil {
			return fmt.Errorf("event %s: %w", e.ID(), err)
		}
	}
	return nil
}

// verifySigner checks one server's signatures: those by unknown or expired keys are skipped, at least one must be left
// and all that are left must hold (Server-Server API, "Validating hashes and signatures on received events").
func (k *Keyring) verifySigner(ctx context.Context, e *matrix.Event, server matrix.ServerName, message []byte) error {
	skipped := fmt.Errorf("%s has not signed it", server)
	good := false
	for _, id := range signatureKeys(e, server) {
		sig, ok := e.Signature(server, id)
		if !ok {
			continue
		}
		err := k.Verify(ctx, server, id, e.OriginServerTS(), e.Version().EnforceKeyValidity(), message, sig)
		switch {
		case err == nil:
			good = true
		case errors.Is(err, ErrUnknownKey), errors.Is(err, ErrExpiredKey):
			skipped = err
		default:
			return err
		}
	}
	if good {
		return nil
	}
	return skipped
}
