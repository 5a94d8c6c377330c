package main

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"conclave/internal/config"
	"conclave/internal/testserver"
)

// firstLook is a listener that does something before it is first asked for a connection.
type firstLook struct {
	net.Listener
	once sync.Once
	do   func()
}

// Accept implements net.Listener.
func (l *firstLook) Accept() (net.Conn, error) {
	l.once.Do(l.do)
	return l.Listener.Accept()
}

// TestOperatorIsHeardFirst: by the time at which a server takes its first connection, commands reach it.
func TestOperatorIsHeardFirst(t *testing.T) {
	conf, log, err := loadConfig(console{strings.NewReader(""), io.Discard, io.Discard, nil}, testserver.New(t, testserver.Options{}).Conf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.EnsureDataDir(conf.DataDir); err != nil {
		t.Fatal(err)
	}
	p, err := openPorts(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	reached := make(chan error, 1)
	p.client = &firstLook{Listener: p.client, do: func() {
		conn, err := net.Dial("unix", operatorSocket(conf.DataDir))
		if err == nil {
			err = conn.Close()
		}
		reached <- err
	}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s, err := construct(ctx, conf, log)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, p) }()
	if err := <-reached; err != nil {
		t.Errorf("the server takes connections, and its operator finds: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
