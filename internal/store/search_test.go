package store_test

import (
	"fmt"
	"testing"

	"conclave/internal/store"
	"conclave/internal/testserver/dbtest"
)

// TestSearchInManyRooms: a search through as many rooms as one may have finds what is in them, however common a word is in
// others; how well it fits does not depend on those.
func TestSearchInManyRooms(t *testing.T) {
	for _, engine := range dbtest.Engines {
		t.Run(engine, func(t *testing.T) {
			db := dbtest.Open(t, engine)
			a := newAppends(t, db)
			mine, head := a.room()
			theirs, other := a.room()
			row, hidden := a.row(mine, "mine"), a.row(theirs, "theirs")
			must(t, db.Append(t.Context(), &store.Append{Room: mine, Head: head, Events: []*store.EventRow{row}}))
			must(t, db.Append(t.Context(), &store.Append{Room: theirs, Head: other, Events: []*store.EventRow{hidden}}))
			put := func(docs ...store.Document) {
				must(t, db.Write(t.Context(), func(tx *store.Tx) error { return tx.PutDocuments(docs) }))
			}
			doc := func(row *store.EventRow, words ...string) store.Document {
				return store.Document{Event: row.NID, Room: row.Room, Sender: row.Sender, Kind: store.DocumentBody, Source: row.NID, Words: words}
			}
			rooms := []store.RoomNID{mine}
			for i := range 999 {
				rooms = append(rooms, store.RoomNID(1_000_000+i))
			}
			search := func(words ...string) (hits []store.Hit) {
				must(t, db.Read(t.Context(), func(tx *store.Tx) error {
					hits = nil
					return tx.Search(store.SearchQuery{Words: words, Rooms: rooms, Kinds: []store.DocumentKind{store.DocumentBody}, Limit: 10}, func(h store.Hit) {
						hits = append(hits, h)
					})
				}))
				return hits
			}
			put(doc(row, "secret", "secret", "plan"), doc(hidden, "plan"))
			before := search("secret")
			if len(before) != 1 || before[0].Event != row.NID {
				t.Fatalf("found %v", before)
			}
			put(doc(hidden, "secret", "secret", "secret"))
			if after := search("secret"); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("what is said elsewhere changes %v to %v", before, after)
			}
			put(doc(row, "plan"))
			if got := search("secret"); len(got) != 0 {
				t.Errorf("replaced words are found: %v", got)
			}
			must(t, db.Write(t.Context(), func(tx *store.Tx) error { return tx.DropDocuments([]store.EventNID{row.NID}) }))
			if got := search("plan"); len(got) != 0 {
				t.Errorf("dropped words are found: %v", got)
			}
		})
	}
}
