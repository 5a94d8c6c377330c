package main

import (
	"context"
	"encoding/json"

	"conclave/clientapi/sync"
	"conclave/internal/appservice"
	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/presence"
	"conclave/internal/store"
	"conclave/rooms"
)

// register reads the registrations of application services and makes what asks them.
func (s *server) register() (err error) {
	if s.services, err = appservice.Load(s.conf.AppServices, s.identity.Name()); err != nil {
		return err
	}
	s.bridges = appservice.NewClient(s.services, netguard.NewDialer(s.conf.Network.AllowPrivate, nil), s.log)
	return nil
}

// bridge makes the users of application services, and lets what concerns them be delivered.
func (s *server) bridge(ctx context.Context) error {
	all := s.services.All()
	if len(all) == 0 {
		return nil
	}
	s.rooms.SetBridges(s.bridges)
	for _, one := range all {
		if err := s.accounts.Provide(ctx, one.Sender); err != nil {
			return err
		}
	}
	deliverer := appservice.NewDeliverer(appservice.DelivererOptions{
		DB: s.db, Client: s.bridges, Source: bridgeSource{s.rooms, s.sync, s.presence}, Log: s.log, Alone: s.conf.Redis.URL.Reveal() == "",
	})
	s.work.Go("application services", deliverer.Run)
	s.onChanges("application service wakes", deliverer.Wake)
	return nil
}

// bridgeSource tells the deliverer of application services what rooms, sync and presence know.
type bridgeSource struct {
	rooms    *rooms.Rooms
	sync     *sync.Engine
	presence *presence.Presence // nil: switched off
}

// Events implements appservice.Source: with the forms that all readers share.
func (s bridgeSource) Events(ctx context.Context, rows []*store.EventRow) ([]json.RawMessage, error) {
	out := make([]json.RawMessage, 0, len(rows))
	for _, row := range rows {
		ref, err := s.rooms.LookupNID(ctx, row.Room)
		if err != nil {
			return nil, err
		}
		one, err := s.sync.Timeline(ctx, sync.Viewpoint{}, ref, []*store.EventRow{row})
		if err != nil {
			return nil, err
		}
		out = append(out, one...)
	}
	return out, nil
}

// Typing implements appservice.Source.
func (s bridgeSource) Typing(after int64) (map[store.RoomNID]json.RawMessage, int64) {
	return s.sync.TypingSince(after)
}

// maxPresence bounds whose presence is told at once.
const maxPresence = 500

// Presence implements appservice.Source.
func (s bridgeSource) Presence(ctx context.Context, after int64) (map[matrix.UserID]json.RawMessage, int64, error) {
	if s.presence == nil || after < 0 || after == s.presence.Position() {
		return nil, s.presence.Position(), nil
	}
	found, upTo, err := s.presence.Read(ctx, presence.Query{After: max(after, 1), Joined: func(store.RoomNID) bool { return true }, Limit: maxPresence})
	if err != nil {
		return nil, 0, err
	}
	out := map[matrix.UserID]json.RawMessage{}
	for _, status := range found {
		raw, err := json.Marshal(map[string]any{"type": "m.presence", "sender": status.User, "content": status.Content(s.presence.Now())})
		if err != nil {
			return nil, 0, err
		}
		out[status.User] = raw
	}
	return out, upTo, nil
}
