package main

import (
	"context"
	"strings"
	"time"

	"conclave/internal/cluster"
	"conclave/internal/mail"
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
	var digests *push.Digests
	if s.accounts.Mails() {
		key, err := s.db.Secret(ctx, "unsubscribe")
		if err != nil {
			return err
		}
		digests = &push.Digests{Source: pushSource{s.rooms}, Key: key}
	}
	s.pushers = push.NewPushers(s.db, s.conf.Network.AllowPrivate, digests, wake)
	deliverer := push.NewDeliverer(push.DelivererOptions{
		DB: s.db, Source: pushSource{s.rooms}, Web: s.webPush, Mail: digests, Log: s.log, Alone: s.conf.Redis.URL.Reveal() == "",
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

// maxMailedName bounds a name in a mail, in bytes.
const maxMailedName = 500

// Waiting implements push.DigestSource.
func (s pushSource) Waiting(ctx context.Context, user store.UserNID, id matrix.UserID, after, upTo store.Pos) ([]push.Waiting, store.Pos, error) {
	list, reached, err := s.rooms.Waiting(ctx, rooms.Sender{NID: user, ID: id}, after, upTo, mail.MaxWaitingRooms)
	if err != nil {
		return nil, 0, err
	}
	short := func(name string) string { return strings.ToValidUTF8(name[:min(len(name), maxMailedName)], "") }
	out := make([]push.Waiting, len(list))
	for i, w := range list {
		room := mail.WaitingRoom{Name: short(w.Name), Invited: w.Invited, Unread: w.Unread.Notify, Mentions: w.Unread.Highlight, From: []string{}, Others: w.Others}
		for _, name := range w.Senders {
			room.From = append(room.From, short(name))
		}
		out[i] = push.Waiting{Newest: time.UnixMilli(w.Newest), Room: room}
	}
	return out, reached, nil
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
