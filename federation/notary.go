package federation

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/internal/store"
)

// Bounds of what a notary does for others (threats F03).
const (
	maxNotaryServers = 50
	notaryFetches    = 8
	notaryTimeout    = 20 * time.Second
)

// Documents are the key documents of some servers for a notary's answer, each signed by its server and by us. wanted
// says until when (ms) each should be valid; a document that is not, or past half of its life, is fetched anew. A
// server that does not answer is answered for by the last document that is known, and left out if there is none.
func (k *Keyring) Documents(ctx context.Context, wanted map[matrix.ServerName]int64) ([]json.RawMessage, error) {
	out := []json.RawMessage{}
	others := make([]matrix.ServerName, 0, len(wanted))
	for server := range wanted {
		if !k.own.IsOurs(server) {
			others = append(others, server)
			continue
		}
		own, err := k.own.Document(server, k.now())
		if err != nil {
			return nil, err
		}
		out = append(out, own)
	}
	held, err := k.heldDocuments(ctx, others)
	if err != nil {
		return nil, err
	}
	var stale []matrix.ServerName
	now := k.now().UnixMilli()
	for _, server := range others {
		doc, ok := held[server]
		if (!ok || doc.ValidUntil < wanted[server] || now > doc.Fetched+(doc.ValidUntil-doc.Fetched)/2) && k.mayAsk(server) {
			stale = append(stale, server)
		}
	}
	if len(stale) > 0 {
		k.refresh(ctx, stale)
		if held, err = k.heldDocuments(ctx, others); err != nil {
			return nil, err
		}
	}
	key := k.own.Key()
	for _, server := range others {
		doc, ok := held[server]
		if !ok {
			continue
		}
		signed, err := matrix.SignJSON(doc.JSON, string(k.own.Name()), key.ID, key.Private)
		if err != nil {
			return nil, fmt.Errorf("signing the key document of %s: %w", server, err)
		}
		out = append(out, signed)
	}
	return out, nil
}

func (k *Keyring) heldDocuments(ctx context.Context, servers []matrix.ServerName) (map[matrix.ServerName]store.KeyDocument, error) {
	held := map[matrix.ServerName]store.KeyDocument{}
	err := k.db.Read(ctx, func(tx *store.Tx) error {
		clear(held)
		return tx.KeyDocuments(servers, func(d store.KeyDocument) { held[d.Server] = d })
	})
	return held, err
}

// refresh fetches several servers' documents, a few at a time, as far as they come in time.
func (k *Keyring) refresh(ctx context.Context, servers []matrix.ServerName) {
	ctx, cancel := context.WithTimeout(ctx, notaryTimeout)
	defer cancel()
	slots := make(chan struct{}, notaryFetches)
	var wg sync.WaitGroup
	for _, server := range servers {
		wg.Go(func() {
			_, err := limited(ctx, slots, func() (serverKeys, error) { return k.fetch(ctx, server) })
			if err != nil {
				k.log.Debug("fetching keys for another server failed", "server", server, "err", err)
			}
		})
	}
	wg.Wait()
}

func (s *Server) getServerKey(*Request) (any, error) {
	doc, err := s.own.Document(s.own.Name(), s.now())
	return json.RawMessage(doc), err
}

func (s *Server) perspectivesKeyQuery(r *Request) (any, error) {
	server, err := matrix.ParseServerName(r.Param("serverName"))
	if err != nil {
		return nil, matrix.InvalidParam("This is not a server name.").With(err)
	}
	until := s.now().UnixMilli()
	if text := r.URL.Query().Get("minimum_valid_until_ts"); text != "" {
		if until, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, matrix.InvalidParam("minimum_valid_until_ts is not a number.").With(err)
		}
	}
	return s.notarize(r.Context(), map[matrix.ServerName]int64{server: until})
}

func (s *Server) bulkPerspectivesKeyQuery(r *Request) (any, error) {
	var body struct {
		Servers map[string]map[string]struct {
			Until *int64 `json:"minimum_valid_until_ts"`
		} `json:"server_keys"`
	}
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	if body.Servers == nil {
		return nil, matrix.MissingParam("server_keys is missing.")
	}
	if len(body.Servers) > maxNotaryServers {
		return nil, matrix.InvalidParam("At most %d servers can be asked for at once.", maxNotaryServers)
	}
	wanted := map[matrix.ServerName]int64{}
	for name, keys := range body.Servers {
		server, err := matrix.ParseServerName(name)
		if err != nil {
			continue // it cannot have keys
		}
		until := s.now().UnixMilli()
		for _, criteria := range keys {
			if criteria.Until != nil {
				until = max(until, *criteria.Until)
			}
		}
		wanted[server] = until
	}
	return s.notarize(r.Context(), wanted)
}

func (s *Server) notarize(ctx context.Context, wanted map[matrix.ServerName]int64) (any, error) {
	documents, err := s.keyring.Documents(ctx, wanted)
	if err != nil {
		return nil, err
	}
	return map[string]any{"server_keys": documents}, nil
}
