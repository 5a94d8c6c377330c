package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"conclave/clientapi"
	"conclave/clientapi/sync"
	"conclave/federation"
	"conclave/internal/accounts"
	"conclave/internal/appservice"
	"conclave/internal/cluster"
	"conclave/internal/config"
	"conclave/internal/limits"
	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/observe"
	"conclave/internal/presence"
	"conclave/internal/push"
	"conclave/internal/store"
	"conclave/internal/work"
	"conclave/keys"
	"conclave/media"
	"conclave/rooms"
	"conclave/web"
)

// server is everything that a running server is made of. It is built in the order of the architecture's table: each
// part gets what stands below it.
type server struct {
	conf     *config.Config
	log      *slog.Logger
	cancel   context.CancelFunc // ends the background work
	work     *work.Group
	draining atomic.Bool

	db       *store.DB
	bus      cluster.Bus
	limits   *limits.Counter
	metrics  *observe.Metrics
	identity *federation.Identity
	rooms    *rooms.Rooms
	keys     *keys.Keys
	media    *media.Media
	accounts *accounts.Accounts
	presence *presence.Presence // nil: switched off
	rules    *push.Rules
	pushers  *push.Pushers
	webPush  *push.WebPush
	services *appservice.Services
	bridges  *appservice.Client
	sync     *sync.Engine
	client   *clientapi.Server
	remote   *remote // nil without federation

	clientHTTP, federationHTTP, adminHTTP *http.Server
}

// remote is the part that talks with other servers.
type remote struct {
	policy     *federation.Policy
	identities *federation.IdentityServices
	client     *federation.Client
	keyring    *federation.Keyring
	signals    *federation.Signals
	sender     *federation.Sender
	server     *federation.Server
}

// alive hears of every server that makes an authenticated request: whatever waits for it waits no longer.
func (r *remote) alive(server matrix.ServerName) {
	r.client.Alive(server)
	r.sender.Alive(server)
}

// construct builds a server over its database. Background work ends with cancel, not with ctx: what was begun is
// finished first.
func construct(ctx context.Context, conf *config.Config, log *slog.Logger) (s *server, err error) {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s = &server{conf: conf, log: log, cancel: cancel, work: work.NewGroup(background, log), bus: cluster.NewLocal(), metrics: observe.NewMetrics(thisBuild().Version)}
	db, err := store.Open(ctx, store.Options{URL: conf.Database.URL.Reveal(), DataDir: conf.DataDir, Logger: log})
	if err != nil {
		cancel()
		return nil, err
	}
	s.db = db
	defer func() {
		if err != nil {
			cancel()
			err = errors.Join(err, db.Close())
		}
	}()
	if err = s.identify(); err != nil {
		return nil, err
	}
	if err = s.register(); err != nil {
		return nil, err
	}
	if conf.Federation.Enabled {
		if s.remote, err = s.reach(); err != nil {
			return nil, err
		}
	}
	if err = s.makeLimits(); err != nil {
		return nil, err
	}
	if err := s.domains(background); err != nil {
		return nil, err
	}
	return s, s.apis(background)
}

// identify reads the server's keys. A key that was made by `conclave keys rotate` signs from now on: the database's lock
// has shown that no other process signs with the one before it.
func (s *server) identify() error {
	path := signingKeyFile(s.conf)
	adopted, err := federation.AdoptKey(path, time.Now())
	if err != nil {
		return err
	}
	if adopted != "" {
		s.log.Info("signing with a new key", "key", adopted)
	}
	current, retired, err := federation.LoadKeys(path)
	if err != nil {
		return err
	}
	s.identity, err = federation.NewIdentity(matrix.ServerName(s.conf.ServerName), current, retired)
	return err
}

// reach makes what finds, asks and verifies other servers.
func (s *server) reach() (*remote, error) {
	roots, err := trusted("federation.ca_file", s.conf.Federation.CAFile)
	if err != nil {
		return nil, err
	}
	r := &remote{policy: federation.NewPolicy(s.conf.Federation.Allow, s.conf.Federation.Deny)}
	dialer, agent := netguard.NewDialer(s.conf.Network.AllowPrivate, nil), "Conclave/"+thisBuild().Version
	r.client = federation.NewClient(federation.ClientOptions{
		Identity: s.identity, Dial: dialer.DialContext, Roots: roots, Policy: r.policy, UserAgent: agent, Log: s.log,
	})
	r.identities = federation.NewIdentityServices(federation.IdentityServicesOptions{
		Identity: s.identity, Dialer: dialer, Roots: roots, Policy: federation.NewPolicy(s.conf.Identity.Allow, s.conf.Identity.Deny), UserAgent: agent,
	})
	notaries := make([]matrix.ServerName, len(s.conf.Federation.Notaries))
	for i, name := range s.conf.Federation.Notaries {
		notaries[i] = matrix.ServerName(name)
	}
	r.keyring = federation.NewKeyring(federation.KeyringOptions{Identity: s.identity, DB: s.db, Source: r.client, Notaries: notaries, Log: s.log})
	return r, nil
}

// trusted are the certificate authorities of the system and of the file of a key; nil, which means the system's, without
// one.
func trusted(key, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator's own configuration names it
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %s holds no certificate in PEM", key, file)
	}
	return roots, nil
}

// domains builds the domains.
func (s *server) domains(ctx context.Context) (err error) {
	key := s.identity.Key()
	s.rooms, err = rooms.New(ctx, rooms.Options{
		DB: s.db, Bus: s.bus, Log: s.log,
		Identity: rooms.Identity{Name: s.identity.Name(), KeyID: key.ID, Key: key.Private},
	})
	if err != nil {
		return err
	}
	s.metrics.Count("conclave_room_panics_total", "Panics in the work of rooms that were contained.", s.rooms.Panics)
	s.metrics.Count("conclave_room_resolution_pauses_total", "How often a room was left alone because its state takes too long to resolve.", s.rooms.Paused)
	if s.remote != nil {
		s.rooms.SetSource(federation.NewSource(s.remote.client, s.remote.keyring))
		if err := s.rooms.Resume(ctx); err != nil {
			return err
		}
		s.rooms.SetIdentityServices(s.remote.identities)
		s.work.Go("joins", s.rooms.RunJoins)
		s.work.Go("invitations to addresses", s.rooms.RunClaims)
	}
	s.work.Go("departures", s.rooms.RunDepartures)
	s.work.Go("erasures", s.rooms.RunErasures)
	s.work.Go("guests in rooms", s.rooms.RunGuests)
	s.work.Go("ends of rooms", s.rooms.RunMerges)
	s.work.Go("search index", s.rooms.RunSearchIndex)
	s.work.Go("directory of people", s.rooms.RunPeople)
	if err := s.makeAccounts(); err != nil {
		return err
	}
	s.work.Go("idle guests", s.accounts.RunGuests)
	k := keys.Options{DB: s.db, IsOurs: s.identity.IsOurs, Bus: s.bus, Log: s.log}
	m := media.Options{DB: s.db, Config: s.conf, Server: s.identity.Name(), Log: s.log}
	if s.remote != nil {
		k.Remote = s.remote.client
		m.Remote = federation.MediaSource{Client: s.remote.client}
	}
	if s.conf.URLPreviews.Enabled {
		m.Web = pages(s.conf.URLPreviews)
	}
	s.keys = keys.New(k)
	s.work.Go("device lists", s.keys.Run)
	if s.media, err = media.New(m); err != nil {
		return err
	}
	s.work.Go("unfinished uploads", s.media.Run)
	s.work.Go("files of erased users", func(ctx context.Context) error { return s.media.RunShredder(ctx, s.bus) })
	if s.conf.Presence.Enabled {
		s.presence, err = presence.New(ctx, presence.Options{
			DB: s.db, Server: s.identity.Name(), Log: s.log, Abroad: s.remote != nil && s.conf.Presence.Federation,
		})
		if err != nil {
			return err
		}
	}
	if err := s.push(ctx); err != nil {
		return err
	}
	s.sync, err = sync.New(ctx, sync.Options{DB: s.db, Rooms: s.rooms, Keys: s.keys, People: s.presence, Bus: s.bus, Log: s.log})
	if err != nil {
		return err
	}
	return s.bridge(ctx)
}

// pages is the client that fetches what previews of links are made of. Its dialer is one of its own: what others may reach
// in the private network (network.allow_private) is not for everybody with an account to read.
func pages(conf config.URLPreviews) *http.Client {
	return netguard.NewDialer(conf.AllowPrivate, nil).HTTPClient(netguard.HTTPOptions{Total: media.PreviewTime, Idle: media.PreviewTime, PerHost: 4})
}

// deliver makes what sends to other servers, and lets it work.
func (s *server) deliver() {
	r := s.remote
	r.signals = federation.NewSignals(s.db, s.identity, s.log, nil)
	outbox := federation.NewRows(federation.RowsOptions{DB: s.db, Identity: s.identity, Keys: s.keys, Signals: r.signals})
	r.sender = federation.NewSender(federation.SenderOptions{
		DB: s.db, Outbox: outbox, Client: r.client, Identity: s.identity, Policy: r.policy, Log: s.log,
		Alone: s.conf.Redis.URL.Reveal() == "",
	})
	r.signals.Wake(r.sender.WakeServer)
	if s.abroad() != nil {
		r.signals.Show(s.presence)
		s.presence.Tell(r.signals)
	}
	s.work.Go("federation sender", r.sender.Run)
	s.work.Go("federation wakes", func(ctx context.Context) error {
		wakes, cancel := s.bus.Subscribe(cluster.Stream)
		defer cancel()
		for {
			select {
			case <-wakes:
				r.sender.Wake()
			case <-ctx.Done():
				return nil
			}
		}
	})
}

// abroad is what other servers tell and are told of presence; nil if nothing.
func (s *server) abroad() *presence.Presence {
	if !s.conf.Presence.Federation {
		return nil
	}
	return s.presence
}

// apis builds what listens.
func (s *server) apis(ctx context.Context) (err error) {
	d := clientapi.Deps{
		Config: s.conf, DB: s.db, Rooms: s.rooms, Accounts: s.accounts, Keys: s.keys, Media: s.media, Sync: s.sync, Presence: s.presence, Bus: s.bus, Limits: s.limits,
		PushRules: s.rules, Pushers: s.pushers, WebPush: s.webPush, Services: s.services, Bridges: s.bridges, Web: web.Handler(), Metrics: s.metrics, Log: s.log,
	}
	if s.remote != nil {
		s.deliver()
		d.Federation, d.Signals, d.Reconnect = federation.Remote{Client: s.remote.client}, s.remote.signals, s.remote.sender.Retry
	}
	if s.client, err = clientapi.New(ctx, d); err != nil {
		return err
	}
	s.clientHTTP = s.client.HTTPServer()
	s.adminHTTP = &http.Server{Handler: observe.AdminHandler(s.metrics, s.ready), ReadHeaderTimeout: 10 * time.Second}
	if s.presence != nil {
		s.work.Go("presence", s.presence.Run)
	}
	if s.remote == nil {
		return nil
	}
	s.remote.server, err = federation.NewServer(federation.ServerOptions{
		Identity: s.identity, Keyring: s.remote.keyring, Policy: s.remote.policy, Log: s.log,
		AnyDestination: !s.conf.Federation.RequireDestination,
		DB:             s.db, Rooms: s.rooms, Accounts: s.accounts, Keys: s.keys, Media: s.media, Bus: s.bus, Metrics: s.metrics,
		Software: "Conclave", Version: thisBuild().Version, Alive: s.remote.alive,
		Presence: s.abroad(),
		Typing:   func(room store.RoomNID, user matrix.UserID, lasts time.Duration) { s.sync.SetTyping(room, user, lasts) },
	})
	if err != nil {
		return err
	}
	if s.conf.OneListener() {
		s.clientHTTP.Handler = oneListener(s.client, s.remote.server)
		return nil
	}
	s.federationHTTP = s.remote.server.HTTP()
	return nil
}
