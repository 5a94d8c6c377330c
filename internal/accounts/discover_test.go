package accounts

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"conclave/internal/config"
)

// TestADeadProviderKeepsNobodyWaiting asks a provider that does not answer: nobody waits in line for it, and while it is
// known to be away nobody waits at all.
func TestADeadProviderKeepsNobodyWaiting(t *testing.T) {
	asked, hang := atomic.Int64{}, make(chan struct{})
	dead := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		<-hang
		http.Error(w, "away", http.StatusBadGateway)
	}))
	defer dead.Close()
	p := newProvider(&config.Config{OIDC: config.OIDC{Issuer: dead.URL}}, dead.Client())
	const people = 8
	answers := make(chan error, people)
	for range people {
		go func() {
			_, err := p.discover(t.Context())
			answers <- err
		}()
	}
	// Somebody whose time is up goes, although the others wait still.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := p.discover(ctx)
	wantCode(t, err, 502, "M_UNKNOWN")
	if !errors.Is(err, context.DeadlineExceeded) || len(answers) != 0 {
		t.Errorf("waited until the provider answered: %v", err)
	}
	close(hang)
	for range people {
		wantCode(t, <-answers, 502, "M_UNKNOWN")
	}
	_, err = p.discover(t.Context())
	wantCode(t, err, 502, "M_UNKNOWN")
	if n := asked.Load(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
	// It is asked again after a while.
	p.mu.Lock()
	p.retry = time.Time{}
	p.mu.Unlock()
	_, err = p.discover(t.Context())
	wantCode(t, err, 502, "M_UNKNOWN")
	if n := asked.Load(); n != 2 {
		t.Errorf("the provider was asked %d times", n)
	}
}
