package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"conclave/federation"
	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/observe"
)

func serveCommand() command {
	return command{
		name: "serve", args: "-config FILE",
		does: "runs the server; SIGTERM lets it finish what it has begun, a second one stops it at once",
		run:  runServe,
	}
}

// drainTime is how long the server finishes what it has begun once it is told to stop.
const drainTime = 10 * time.Second

// runServe runs the server until ctx ends. A configuration that does not do and a port that is taken are errors of one
// line.
func runServe(ctx context.Context, c console, args []string) error {
	set := flag.NewFlagSet("serve", flag.ContinueOnError)
	file := set.String("config", "", "the configuration `file`")
	if _, err := parse(c, set, args, 0, 0); err != nil {
		return err
	}
	conf, log, err := loadConfig(c, *file)
	if err != nil {
		return err
	}
	if _, err := config.EnsureDataDir(conf.DataDir); err != nil {
		return err
	}
	ports, err := openPorts(conf)
	if err != nil {
		return err
	}
	defer ports.close()
	s, err := construct(ctx, conf, log)
	if err != nil {
		return err
	}
	return s.run(ctx, ports)
}

// loadConfig reads the configuration and makes the logger that it asks for, with which it gives its warnings.
func loadConfig(c console, file string) (*config.Config, *slog.Logger, error) {
	conf, err := config.Load(file, c.environ)
	if err != nil {
		return nil, nil, err
	}
	log, err := observe.NewLogger(c.err, conf.Log.Level, conf.Log.Format)
	if err != nil {
		return nil, nil, err
	}
	for _, warning := range conf.Warnings() {
		log.Warn(warning)
	}
	return conf, log, nil
}

// ports are the listeners of a server. Connections wait in them until the server is ready.
type ports struct {
	client, federation, admin net.Listener // nil: not opened
}

// openPorts opens the listeners before anything else, so that a second server on the same ports touches nothing.
func openPorts(conf *config.Config) (p ports, err error) {
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	certificates, err := loadCertificates(conf)
	if err != nil {
		return p, err
	}
	if p.client, err = openPort("listen.client", conf.Listen.Client, certificates, conf.TLS.Client); err != nil {
		return p, err
	}
	if conf.Federation.Enabled && !conf.OneListener() {
		if p.federation, err = openPort("listen.federation", conf.Listen.Federation, certificates, conf.TLS.Federation); err != nil {
			return p, err
		}
	}
	if conf.Listen.Admin != "" {
		p.admin, err = listen("listen.admin", conf.Listen.Admin)
	}
	return p, err
}

// loadCertificates reads the certificate of the configuration, or makes one that signs itself; nil if no port needs it.
func loadCertificates(conf *config.Config) (*federation.Certificates, error) {
	if !conf.TLS.Client && !(conf.TLS.Federation && conf.Federation.Enabled) {
		return nil, nil
	}
	cert, key := conf.TLS.CertFile, conf.TLS.KeyFile
	if cert == "" {
		var err error
		if cert, key, err = federation.SelfSigned(filepath.Join(conf.DataDir, "tls"), matrix.ServerName(conf.ServerName)); err != nil {
			return nil, err
		}
	}
	return federation.LoadCertificates(cert, key)
}

func openPort(key, address string, certificates *federation.Certificates, secure bool) (net.Listener, error) {
	l, err := listen(key, address)
	if err != nil || !secure {
		return l, err
	}
	return tls.NewListener(l, certificates.TLSConfig()), nil
}

func (p ports) close() {
	for _, l := range []net.Listener{p.client, p.federation, p.admin} {
		if l != nil {
			_ = l.Close() // the server that used it has closed it already
		}
	}
}

// run serves until ctx ends, and then finishes what was begun.
func (s *server) run(ctx context.Context, p ports) error {
	// Before anybody is answered: whoever has seen the server run gives it commands, which take it for stopped as long as there
	// is no socket.
	defer s.operate()()
	servers := []*http.Server{s.clientHTTP}
	failed := make(chan error, 3)
	serve := func(h *http.Server, l net.Listener) {
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	}
	go serve(s.clientHTTP, p.client)
	if p.federation != nil {
		servers = append(servers, s.federationHTTP)
		go serve(s.federationHTTP, p.federation)
	}
	if p.admin != nil {
		servers = append(servers, s.adminHTTP)
		go serve(s.adminHTTP, p.admin)
	}
	s.log.Info("serving", "server_name", s.conf.ServerName, "client", address(p.client), "federation", address(p.federation), "admin", address(p.admin))
	var err error
	select {
	case <-ctx.Done():
		s.log.Info("draining")
	case err = <-failed:
	}
	return errors.Join(err, s.stop(servers))
}

// stop ends the server in order: no new requests, those that wait end at once, those under way finish; then what works
// in the background, then the database.
func (s *server) stop(servers []*http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	s.draining.Store(true)
	s.client.Drain()
	s.media.Drain()
	done := make(chan error, len(servers))
	for _, h := range servers {
		go func() { done <- h.Shutdown(ctx) }()
	}
	late := false
	for range servers {
		if <-done != nil {
			late = true
		}
	}
	if late {
		s.log.Warn("some requests did not end in time and were cut off")
		for _, h := range servers {
			_ = h.Close()
		}
	}
	if err := s.rooms.Close(ctx); err != nil {
		s.log.Warn("some rooms had not written everything", "err", err)
	}
	s.cancel()
	if err := s.work.Wait(ctx); err != nil {
		s.log.Warn("some work did not end in time", "err", err)
	}
	s.limits.Close()
	return s.db.Close()
}

// address is where a listener listens, for the log.
func address(l net.Listener) string {
	if l == nil {
		return "off"
	}
	return l.Addr().String()
}

// oneListener serves both APIs on one port: what is federation's goes there.
func oneListener(client, federation http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_matrix/federation/") || strings.HasPrefix(r.URL.Path, "/_matrix/key/") {
			federation.ServeHTTP(w, r)
			return
		}
		client.ServeHTTP(w, r)
	})
}

var errDrains = errors.New("the server is draining")

// ready tells whether requests can be answered: for /readyz.
func (s *server) ready(ctx context.Context) error {
	if s.draining.Load() {
		return errDrains
	}
	if err := s.db.Ping(ctx); err != nil {
		s.log.Warn("the database does not answer", "err", err)
		return fmt.Errorf("the database does not answer")
	}
	return nil
}
