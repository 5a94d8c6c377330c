package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestSecretNeverPrints(t *testing.T) {
	const canary = "canary-secret"
	s := Secret(canary)
	type holder struct {
		Inner Secret `json:"inner"`
	}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb, s, holder{s}, &holder{s})
	}
	encoded, err := json.Marshal(map[string]any{"a": holder{s}, "b": s})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(encoded)
	fmt.Fprint(&out, errors.New(s.String()), s)
	for _, format := range []string{"text", "json"} {
		log, err := NewLogger(&out, "debug", format)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("a line", "token", s, "in a struct", holder{s}, "in a list", []Secret{s})
	}
	if text := out.String(); strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
		t.Errorf("the secret is printed: %s", text)
	}
	if s.Reveal() != canary || !strings.Contains(out.String(), redacted) {
		t.Error("the secret is lost")
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(&out, "warn", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("loud")
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 1 || !json.Valid([]byte(lines[0])) || !strings.Contains(lines[0], "loud") {
		t.Errorf("logged %q", out.String())
	}
	for _, bad := range [][2]string{{"loud", "text"}, {"info", "xml"}} {
		if _, err := NewLogger(&out, bad[0], bad[1]); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func get(t *testing.T, server *httptest.Server, path, host string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		request.Host = host
	}
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestAdminPort(t *testing.T) {
	m := NewMetrics("1.2.3")
	m.Request("client", "sendMessage", 200, 30*time.Millisecond)
	m.Request("client", "sendMessage", 429, time.Millisecond)
	m.Request("client", "sendMessage", 999, time.Millisecond)
	var none *Metrics
	none.Request("client", "sendMessage", 200, 0)
	var notReady error
	server := httptest.NewServer(AdminHandler(m, func(context.Context) error { return notReady }))
	defer server.Close()

	_, body := get(t, server, "/metrics", "")
	for _, line := range []string{
		`conclave_requests_total{api="client",operation="sendMessage",status="2xx"} 1`, `status="429"} 1`, `status="other"} 1`,
		`conclave_request_duration_seconds_bucket{api="client",operation="sendMessage",le="0.05"} 3`, `conclave_build_info{version="1.2.3"} 1`,
		"go_goroutines", "process_open_fds",
	} {
		if !strings.Contains(body, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	for path, want := range map[string]string{"/healthz": "alive", "/readyz": "ready", "/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile"} {
		if status, body := get(t, server, path, ""); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s answers %d %q", path, status, body)
		}
	}
	notReady = errors.New("migrations are pending")
	if status, body := get(t, server, "/readyz", ""); status != 503 || body != "not ready: migrations are pending\n" {
		t.Errorf("answers %d %q", status, body)
	}
	if status, _ := get(t, server, "/healthz", ""); status != 200 {
		t.Error("a server that is not ready is alive nevertheless")
	}
}

func TestAdminPortRefusesForeignNames(t *testing.T) {
	server := httptest.NewServer(AdminHandler(NewMetrics(""), func(context.Context) error { return nil }))
	defer server.Close()
	for host, want := range map[string]int{
		"localhost": 200, "LOCALHOST:80": 200, "127.0.0.1:9": 200, "[::1]:9": 200, "[::1]": 200,
		"evil.example": 403, "evil.example:8009": 403, "127.0.0.1.evil.example": 403, "localhost.evil.example": 403,
	} {
		if status, _ := get(t, server, "/metrics", host); status != want {
			t.Errorf("Host %s: %d, want %d", host, status, want)
		}
	}
}
