package sync

import (
	"context"
	"encoding/json"

	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/rooms"
)

// Bundled is Timeline with what relates to each event in its unsigned.m.relations (client-server API, "Aggregations of child
// events"). That depends on the reader: events to which nothing relates have the form that all share, the others one of their
// own.
func (e *Engine) Bundled(ctx context.Context, who Viewpoint, ref rooms.Ref, viewer rooms.Viewer, rows []*store.EventRow) ([]json.RawMessage, error) {
	if len(rows) == 0 {
		return []json.RawMessage{}, nil
	}
	reader, err := e.rooms.Reader(ctx, who.User.NID, viewer)
	if err != nil {
		return nil, err
	}
	return e.BundledFor(ctx, who, ref, reader, rows)
}

// BundledFor is Bundled for a reader whose ignored users are known.
func (e *Engine) BundledFor(ctx context.Context, who Viewpoint, ref rooms.Ref, reader rooms.Reader, rows []*store.EventRow) ([]json.RawMessage, error) {
	bundles, err := e.rooms.Bundles(ctx, ref, reader, rows)
	if err != nil {
		return nil, err
	}
	if len(bundles) == 0 {
		return e.Timeline(ctx, who, ref, rows)
	}
	var edits, latest []*store.EventRow
	inner := map[store.EventNID]*rooms.Bundle{}
	for _, b := range bundles {
		edits = appendEdit(edits, b)
		if t := b.Thread; t != nil {
			latest = append(latest, t.Latest)
			edits = appendEdit(edits, t.Bundle)
			if t.Bundle != nil {
				inner[t.Latest.NID] = t.Bundle
			}
		}
	}
	forms := map[store.EventNID]json.RawMessage{}
	if err := e.formsOf(ctx, who, ref, edits, nil, forms); err != nil {
		return nil, err
	}
	threads := map[store.EventNID]json.RawMessage{} // an event may be both: an edit has no bundle of its own there
	if err := e.formsOf(ctx, who, ref, latest, relationsOf(inner, forms, nil), threads); err != nil {
		return nil, err
	}
	return e.timeline(ctx, who, ref, rows, relationsOf(bundles, forms, threads))
}

func appendEdit(edits []*store.EventRow, b *rooms.Bundle) []*store.EventRow {
	if b == nil || b.Edit == nil {
		return edits
	}
	return append(edits, b.Edit)
}

// formsOf writes events into a map.
func (e *Engine) formsOf(ctx context.Context, who Viewpoint, ref rooms.Ref, rows []*store.EventRow, relations map[store.EventNID]json.RawMessage, into map[store.EventNID]json.RawMessage) error {
	texts, err := e.timeline(ctx, who, ref, rows, relations)
	for i, text := range texts {
		into[rows[i].NID] = text
	}
	return err
}

// relations is the m.relations of an event.
type relations struct {
	Replace   json.RawMessage `json:"m.replace,omitempty"`
	Reference *references     `json:"m.reference,omitempty"`
	Thread    *thread         `json:"m.thread,omitempty"`
}

type references struct {
	Chunk []reference `json:"chunk"`
}

type reference struct {
	EventID matrix.EventID `json:"event_id"`
}

type thread struct {
	Latest       json.RawMessage `json:"latest_event"`
	Count        int             `json:"count"`
	Participated bool            `json:"current_user_participated"`
}

// relationsOf writes bundles, whose events are written already.
func relationsOf(bundles map[store.EventNID]*rooms.Bundle, edits, latest map[store.EventNID]json.RawMessage) map[store.EventNID]json.RawMessage {
	out := make(map[store.EventNID]json.RawMessage, len(bundles))
	for nid, b := range bundles {
		var r relations
		if b.Edit != nil {
			r.Replace = edits[b.Edit.NID]
		}
		if len(b.References) > 0 {
			r.Reference = &references{}
			for _, id := range b.References {
				r.Reference.Chunk = append(r.Reference.Chunk, reference{id})
			}
		}
		if t := b.Thread; t != nil {
			r.Thread = &thread{latest[t.Latest.NID], t.Count, t.Participated}
		}
		if raw, err := json.Marshal(r); err == nil { // all of it is JSON already, or plain
			out[nid] = raw
		}
	}
	return out
}
