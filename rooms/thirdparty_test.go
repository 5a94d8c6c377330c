package rooms

import (
	"context"

	"conclave/internal/matrix"
)

func (w *world) ExchangeThirdPartyInvite(_ context.Context, server matrix.ServerName, _ matrix.RoomID, _ []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.enter("exchange_third_party_invite", server)
}
