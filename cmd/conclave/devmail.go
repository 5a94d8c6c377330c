package main

import (
	"context"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"slices"
	"time"

	"conclave/internal/mail/catcher"
)

// devMail catches what both servers of `conclave dev` send, and shows it on a page. Both are on loopback.
type devMail struct {
	caught *catcher.Server
	pages  *http.Server
	url    string
}

// catchMail starts it, on ports of its own.
func catchMail() (*devMail, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening a port for the page with mails: %w", err)
	}
	m := &devMail{}
	if m.caught, err = catcher.Start(catcher.Options{UTF8: true}); err != nil {
		_ = l.Close() // it was never used
		return nil, fmt.Errorf("starting a mail server: %w", err)
	}
	m.url = fmt.Sprintf("http://localhost:%d", l.Addr().(*net.TCPAddr).Port)
	m.pages = &http.Server{Handler: m, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = m.pages.Serve(l) }() // it ends with close
	return m, nil
}

func (m *devMail) close() {
	_ = m.pages.Close() // nobody waits for it
	_ = m.caught.Close()
}

// environ are the settings by which a server sends its mail here.
func (m *devMail) environ() []string {
	return []string{"CONCLAVE_EMAIL_SMTP_URL=" + m.caught.URL(), "CONCLAVE_EMAIL_FROM=Conclave <conclave@localhost>"}
}

var devMailPage = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="5"><title>Mails of conclave dev</title></head>
<body>
<main>
<h1>Mails</h1>
{{range .}}<article>
<h2>{{.Subject}}</h2>
<p>To {{.To}}, {{.At.Format "15:04:05"}}</p>
<pre>{{.Text}}</pre>
{{if .Link}}<p><a href="{{.Link}}" rel="noreferrer">{{.Link}}</a></p>{{end}}
</article>
{{else}}<p>There are none yet. This page looks again every five seconds.</p>
{{end}}</main>
</body>
</html>
`))

// ServeHTTP shows the mails, the newest first. It answers under its own names alone: a page elsewhere in the web could have
// a name of its own lead here and read them.
func (m *devMail) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil || host != "localhost" && host != "127.0.0.1" || r.URL.Path != "/" {
		http.NotFound(w, r)
		return
	}
	mails := m.caught.Mails("")
	slices.Reverse(mails)
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Cache-Control", "no-store")
	_ = devMailPage.Execute(w, mails) // who went away is nobody to tell
}

// catch starts catching mail until ctx ends.
func (p *pair) catch(ctx context.Context) error {
	m, err := catchMail()
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, m.close)
	p.mail = m
	return nil
}
