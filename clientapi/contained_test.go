package clientapi

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"conclave/internal/config"
)

// TestAFaultOfOursIsAnError: a handler that panics answers as one that fails, and the log says where it was without saying
// what it was about; an answer that has begun is cut.
func TestAFaultOfOursIsAnError(t *testing.T) {
	var log bytes.Buffer
	s := &Server{Deps: Deps{Config: &config.Config{}, Log: slog.New(slog.NewTextHandler(&log, nil))}, echo: echo.New()}
	for path, handler := range map[string]func(*Server, *Request) (any, error){
		"/before": func(*Server, *Request) (any, error) { panic("canary content") },
		"/within": func(_ *Server, r *Request) (any, error) {
			r.Response().WriteHeader(http.StatusOK)
			_, err := r.Response().Write([]byte("the beginning"))
			r.Response().Flush()
			if err == nil {
				panic("canary content")
			}
			return nil, err
		},
	} {
		s.echo.GET(path, s.handle(Route{Method: http.MethodGet, Path: path, OperationID: path[1:], Auth: NoAuth, Handler: handler}))
	}
	server := httptest.NewServer(s.echo)
	defer server.Close()
	get := func(path string) (int, string, error) {
		res, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close() //nolint:errcheck // it was read
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, string(body), err
	}
	if status, body, err := get("/before"); status != http.StatusInternalServerError || !strings.Contains(body, "M_UNKNOWN") || err != nil {
		t.Errorf("%d %s %v", status, body, err)
	}
	if _, body, err := get("/within"); err == nil {
		t.Errorf("an answer that was cut reads as whole: %q", body)
	}
	server.Close() // waits for what still writes the log
	for _, part := range []string{"operation=before", "operation=within", "panic with a string", "contained_test.go"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log lacks %q", part)
		}
	}
	if strings.Contains(log.String(), "canary") {
		t.Error("the value of a panic was logged")
	}
}
