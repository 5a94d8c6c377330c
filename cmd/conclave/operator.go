package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"conclave/internal/accounts"
	"conclave/internal/matrix"
	"conclave/internal/store"
)

// operator is who may enter commands on the server's machine. A running server takes them from a Unix socket in a folder
// of data_dir that only the server's own user can enter; without a running server the command does the same by itself.
type operator struct {
	db       *store.DB
	accounts *accounts.Accounts
}

// byOperator is who the audit log says it was.
const byOperator = "operator"

// userRequest is one of the commands `conclave user …`.
type userRequest struct {
	Action   string `json:"action"` // create, list, reset-password, reset-2fa, link, unlink, deactivate
	Name     string `json:"name,omitempty"`
	Password string `json:"password,omitempty"`
	Admin    bool   `json:"admin,omitempty"`
	Erase    bool   `json:"erase,omitempty"`
	Subject  string `json:"subject,omitempty"`
	After    string `json:"after,omitempty"` // of a list: the name that it goes on after
}

// userAnswer is what came of it.
type userAnswer struct {
	UserID string       `json:"user_id,omitempty"`
	Users  []listedUser `json:"users,omitempty"`
}

// listedUser is an account in a list.
type listedUser struct {
	UserID      string `json:"user_id"`
	Admin       bool   `json:"admin"`
	Deactivated bool   `json:"deactivated"`
	Created     int64  `json:"created"` // ms
}

// usersPerPage is how many accounts one answer lists.
const usersPerPage = 1000

// do carries a command out.
func (o operator) do(ctx context.Context, q userRequest) (userAnswer, error) {
	switch q.Action {
	case "create":
		login, err := o.accounts.Register(ctx, accounts.Registration{Username: q.Name, Password: q.Password, Admin: q.Admin, By: byOperator})
		if err != nil {
			return userAnswer{}, err
		}
		return userAnswer{UserID: string(login.UserID)}, nil
	case "list":
		return o.list(ctx, q.After)
	}
	id := matrix.UserID(q.Name)
	if q.Action == "deactivate" && q.Erase { // also what was closed without
		return userAnswer{UserID: string(id)}, o.erase(ctx, id)
	}
	account, err := o.accounts.Find(ctx, id)
	if err != nil {
		return userAnswer{}, err
	}
	switch q.Action {
	case "reset-password":
		err = o.accounts.ResetPassword(ctx, byOperator, account.User, q.Password)
	case "reset-2fa":
		err = o.accounts.ResetFactors(ctx, byOperator, account.User)
	case "link":
		err = o.accounts.Link(ctx, byOperator, account.User, q.Subject)
	case "unlink":
		err = o.accounts.Unlink(ctx, byOperator, account.User)
	case "deactivate":
		err = o.accounts.Close(ctx, accounts.Closing{User: account.User, By: byOperator})
	default:
		err = matrix.Unrecognized("This server does not know the command %q.", q.Action)
	}
	return userAnswer{UserID: string(account.ID)}, err
}

// erase closes an account, if it is open, and has what its user has left erased.
func (o operator) erase(ctx context.Context, id matrix.UserID) error {
	user, err := o.accounts.Account(ctx, id)
	if err != nil {
		return err
	}
	return o.accounts.Close(ctx, accounts.Closing{User: user.User, Erase: true, By: byOperator})
}

func (o operator) list(ctx context.Context, after string) (a userAnswer, err error) {
	err = o.db.Read(ctx, func(tx *store.Tx) error {
		a.Users = nil
		return tx.Accounts(after, usersPerPage, func(u store.Account) {
			a.Users = append(a.Users, listedUser{string(u.ID), u.Admin, u.Deactivated, u.Created})
		})
	})
	return a, err
}

// operatorSocket is where a running server listens for its operator.
func operatorSocket(dataDir string) string {
	path := filepath.Join(dataDir, "run", "operator.sock")
	// The system bounds the length of the path by about a hundred bytes: from here it may be shorter.
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, path); err == nil && len(rel) < len(path) {
			return rel
		}
	}
	return path
}

// operate listens for the operator until the function that it returns is called. A server runs without it where there
// cannot be such a socket.
func (s *server) operate() (stop func()) {
	l, err := listenForOperator(operatorSocket(s.conf.DataDir))
	if err != nil {
		s.log.Warn("commands like `conclave user` work only while the server is stopped", "err", err)
		return func() {}
	}
	mux := http.NewServeMux()
	mux.Handle("POST /user", operatorHandler(operator{s.db, s.accounts}, s.log))
	mux.Handle("POST /audit", auditHandler(operator{s.db, s.accounts}, s.log))
	mux.Handle("POST /compare", compareHandler(s.rooms, s.log))
	h := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("the operator's socket failed", "err", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if h.Shutdown(ctx) != nil {
			_ = h.Close()
		}
		<-done
	}
}

// listenForOperator opens the socket. Its folder keeps everybody else out, from before the socket exists. One that is
// there was left by a server that was killed: the database's lock has shown that none runs.
func listenForOperator(path string) (net.Listener, error) {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}

// maxCommand bounds a command in bytes.
const maxCommand = 64 << 10

// operatorHandler answers commands.
func operatorHandler(o operator, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q userRequest
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCommand))
		if err == nil {
			err = matrix.Decode(body, &q)
		}
		var answer any
		if err == nil {
			answer, err = o.do(r.Context(), q)
		}
		if err != nil {
			var known *matrix.Error
			if !errors.As(err, &known) {
				log.Error("a command failed", "action", q.Action, "err", err)
				known = matrix.Errorf(http.StatusInternalServerError, "M_UNKNOWN", "Something went wrong; the server's log says what.")
			}
			w.WriteHeader(known.Status)
			answer = known
		}
		if raw, err := json.Marshal(answer); err == nil {
			_, _ = w.Write(raw) // a command that was given up is nobody to tell
		}
	})
}

// errNotRunning is that no server listens for its operator.
var errNotRunning = errors.New("no server runs")

// askServer gives a command about users to the running server, or returns errNotRunning.
func askServer(ctx context.Context, dataDir string, q userRequest) (a userAnswer, err error) {
	body, err := toServer(ctx, dataDir, "/user", q)
	if err != nil {
		return a, err
	}
	defer func() { _ = body.Close() }()
	raw, err := io.ReadAll(body)
	if err != nil {
		return a, fmt.Errorf("asking the running server: %w", err)
	}
	return a, json.Unmarshal(raw, &a)
}

// toServer gives a command to the running server and returns its answer, or errNotRunning.
func toServer(ctx context.Context, dataDir, command string, q any) (io.ReadCloser, error) {
	path := operatorSocket(dataDir)
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s belongs to another user: run this command as the user that the server runs as", path)
	case err != nil:
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	raw, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://operator"+command, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the running server: %w", err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer func() { _ = res.Body.Close() }()
	if raw, err = io.ReadAll(res.Body); err != nil {
		return nil, fmt.Errorf("asking the running server: %w", err)
	}
	var refusal struct {
		Text string `json:"error"`
	}
	if err := json.Unmarshal(raw, &refusal); err != nil || refusal.Text == "" {
		return nil, fmt.Errorf("the running server answered with status %d", res.StatusCode)
	}
	return nil, errors.New(refusal.Text)
}
