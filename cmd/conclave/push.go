package main

import (
	"context"
	"strings"

	"conclave/internal/cluster"
	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/push"
	"conclave/internal/store"
	"conclave/rooms"
)

// push makes what tells people of events, and lets it work.
func (s *server) push(ctx context.Context) error {
	secret, err := s.db.Secret(ctx, "webpush")
	if err != nil {
		return err
	}
	contact := s.conf.PublicURL
	if !strings.HasPrefix(contact, "https://") {
		contact = "https://" + s.conf.ServerName
	}
	if s.webPush, err = push.NewWebPush(secret, contact); err != nil {
		return err
	}
	wake := func() { s.bus.Publish(cluster.Stream, 0) }
	s.rules = push.NewRules(s.db, s.log, s.rooms.RulesChanged, wake)
	s.pushers = push.NewPushers(s.db, s.conf.Network.AllowPrivate, wake)
	deliverer := push.NewDeliverer(push.DelivererOptions{
		DB: s.db, Source: pushSource{s.rooms}, Web: s.webPush, Log: s.log, Alone: s.conf.Redis.URL.Reveal() == "",
		Client: push.NewClient(netguard.NewDialer(s.conf.Network.AllowPrivate, nil)),
	})
	s.work.Go("push", deliverer.Run)
	s.onChanges("push wakes", deliverer.Wake)
	return nil
}

// pushSource tells the deliverer of notifications what rooms know.
type pushSource struct{ rooms *rooms.Rooms }

// Notices implements push.Source.
func (s pushSource) Notices(ctx context.Context, user store.UserNID, id matrix.UserID, after, upTo store.Pos) ([]push.Notice, store.Pos, error) {
	list, reached, err := s.rooms.Notices(ctx, rooms.Sender{NID: user, ID: id}, after, upTo)
	if err != nil {
		return nil, 0, err
	}
	out := make([]push.Notice, len(list))
	for i, n := range list {
		names, err := s.rooms.NamesFor(ctx, n)
		if err != nil {
			return nil, 0, err
		}
		out[i] = push.Notice{
			Pos: n.Pos, Room: n.Ref.ID, Event: n.Row.Event, Actions: n.Actions,
			SenderName: names.Sender, RoomName: names.Room, RoomAlias: names.Alias,
		}
	}
	return out, reached, nil
}

// Unread implements push.Source.
func (s pushSource) Unread(ctx context.Context, user store.UserNID) (int64, error) {
	total, err := s.rooms.UnreadEverywhere(ctx, user)
	return total.Notify, err
}

// onChanges calls wake whenever something came into the stream, until the server ends. A wake that is lost is made up for
// by whoever is woken (law 8).
func (s *server) onChanges(name string, wake func()) {
	s.work.Go(name, func(ctx context.Context) error {
		wakes, cancel := s.bus.Subscribe(cluster.Stream)
		defer cancel()
		for {
			select {
			case <-wakes:
				wake()
			case <-ctx.Done():
				return nil
			}
		}
	})
}
