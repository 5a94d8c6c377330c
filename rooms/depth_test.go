package rooms

import (
	"fmt"
	"testing"

	"conclave/internal/matrix"
	"conclave/internal/testserver/dbtest"
	"conclave/internal/testserver/proof"
)

// TestDepthIsCapped follows an event that is as deep as its room's version can say, and one that is nearly.
func TestDepthIsCapped(t *testing.T) {
	db := dbtest.Open(t, "sqlite")
	for v, most := range map[matrix.RoomVersion]int64{5: 1<<63 - 1, 6: 1<<53 - 1} {
		t.Run("version "+v.String(), func(t *testing.T) {
			proof.Of(t, "RV-03")
			w := newWorldNamed(t, v, matrix.RoomID(fmt.Sprintf("!deep%s:near.test", v)))
			n := newNode(t, db, w)
			ref := n.join()
			shallow := n.row(ref, w.tip).Event.Depth()
			if got := n.say(ref, "as usual").Depth(); got != shallow+1 {
				t.Errorf("behind depth %d comes %d", shallow, got)
			}
			for _, depth := range []int64{most - 1, most} {
				n.bring(w.on(event{sender: bob, typ: "m.room.message", content: map[string]any{"body": "deep"}, prev: []matrix.EventID{w.tip}, depth: depth}))
				if got := n.say(ref, "deeper").Depth(); got != most {
					t.Errorf("behind depth %d comes %d", depth, got)
				}
			}
		})
	}
}
