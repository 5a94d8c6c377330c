package media

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/maypok86/otter/v2"

	"conclave/internal/config"
	"conclave/internal/matrix"
	"conclave/internal/store"
	"conclave/internal/work"
)

// Bounds of previews (threats O07). Everybody with an account can have the server fetch what they name, so all of it is
// bounded: how many at a time, how long, how much, and what is kept of it.
const (
	previewWorkers = 4                // pages that are fetched at a time
	previewsInAll  = 32               // being fetched or waiting for it
	previewsEach   = 8                // of those, begun by one user
	previewWait    = 10 * time.Second // for a worker
	previewLife    = time.Hour
	previewRetry   = time.Minute // until what failed is tried again
	maxPreviews    = 500         // remembered
)

// PreviewTime is how long a page and its picture may take, redirects and all.
const PreviewTime = 10 * time.Second

// Preview is what is told of a page: properties of the OpenGraph protocol, og:image as an mxc URI, and matrix:image:size.
// It may be empty.
type Preview map[string]any

// PreviewQuery says of which page a preview is wanted.
type PreviewQuery struct {
	URL      string
	Language string // an Accept-Language header; "" = none
	User     store.UserNID
}

// previews are the pages that were looked at, in this node's memory. Their pictures are copies as those of other servers'
// contents are: rows and files that stay until their room is needed (remote.go).
type previews struct {
	web     Web
	ports   []string
	now     func() time.Time
	known   *otter.Cache[pageKey, *preview]
	failed  memory[pageKey]
	flights work.Flights[pageKey, *preview]
	places  places[store.UserNID]
	workers chan struct{}
	wait    time.Duration // previewWait, except in tests
	time    time.Duration // PreviewTime, likewise
}

// pageKey names a page as it is shown to somebody: sites answer in the language that is asked for.
type pageKey struct{ url, language string }

// preview is a page that was looked at. It never changes.
type preview struct {
	told  Preview
	image string // the ID of its picture among our contents, "" without one
	until time.Time
}

func (p *previews) init(o Options) {
	p.web, p.now, p.failed.now = o.Web, o.Clock, o.Clock
	p.wait, p.time = previewWait, PreviewTime
	p.ports = previewPorts(o.Config.URLPreviews)
	p.known = otter.Must(&otter.Options[pageKey, *preview]{MaximumSize: maxPreviews})
	p.places.each, p.places.all = previewsEach, previewsInAll
	p.workers = make(chan struct{}, previewWorkers)
}

func previewPorts(c config.URLPreviews) []string { return append([]string{"80", "443"}, c.Ports...) }

// errNoPreview is all that a client learns of a page that could not be looked at: why would tell what is listening where,
// and which names there are, in a network that the server sees and the client does not.
func errNoPreview() *matrix.Error {
	return matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "There is no preview of this address.")
}

// Preview tells what a page is about (client-server API, "GET /_matrix/client/v1/media/preview_url"). The page is
// fetched once for all who ask, and what it says is remembered for an hour.
func (m *Media) Preview(ctx context.Context, q PreviewQuery) (Preview, error) {
	p := &m.previews
	if p.web == nil {
		// As the specification answers for an endpoint that a server does not have: clients take other errors for an
		// accident of one page, and go on asking.
		return nil, matrix.Unrecognized("This server makes no previews of links.")
	}
	target, err := p.parse(q.URL)
	if err != nil {
		return nil, err
	}
	key := pageKey{target.String(), validLanguage(q.Language)}
	if found, err := m.remembered(ctx, key); found != nil || err != nil {
		return found.reveal(), err
	}
	if err := p.failed.get(key); err != nil {
		return nil, err
	}
	if err := m.allowance.check(q.User); err != nil {
		return nil, err
	}
	made, err := p.flights.Do(ctx, key, func(ctx context.Context) (*preview, error) {
		if found, err := m.remembered(ctx, key); found != nil || err != nil {
			return found, err // the flight before this one has brought it
		}
		return m.makePreview(ctx, target, key, q.User)
	})
	return made.reveal(), err
}

func (p *preview) reveal() Preview {
	if p == nil {
		return nil
	}
	return p.told
}

// remembered is a preview that still holds, or nil. One whose picture was given up meanwhile is worth nothing: it would
// show a hole.
func (m *Media) remembered(ctx context.Context, key pageKey) (*preview, error) {
	found, ok := m.previews.known.GetIfPresent(key)
	if !ok || !m.previews.now().Before(found.until) {
		return nil, nil
	}
	if found.image == "" {
		return found, nil
	}
	row, err := m.row(ctx, Query{Server: m.o.Server, ID: found.image})
	if row == nil || err != nil {
		return nil, err
	}
	m.used(ctx, row)
	return found, nil
}

// makePreview waits for a worker's place, looks at a page and remembers what came of it. The place counts for the user
// who began it, also when that one has gone.
func (m *Media) makePreview(ctx context.Context, target *url.URL, key pageKey, user store.UserNID) (*preview, error) {
	p := &m.previews
	if !p.places.take(user) {
		return nil, matrix.LimitExceeded(time.Second.Milliseconds())
	}
	defer p.places.release(user)
	wait := time.NewTimer(p.wait)
	defer wait.Stop()
	select {
	case p.workers <- struct{}{}:
		defer func() { <-p.workers }()
	case <-wait.C:
		return nil, matrix.LimitExceeded(previewWait.Milliseconds())
	}
	ctx, cancel := context.WithTimeout(ctx, p.time)
	defer cancel()
	t := trip{m: m, language: key.language}
	made, err := t.look(ctx, target)
	m.allowance.charge(user, t.bytes)
	if own := (ownFault{}); errors.As(err, &own) {
		return nil, own.error
	}
	if err != nil {
		p.failed.put(key, previewRetry, errNoPreview())
		return nil, errNoPreview()
	}
	p.known.Set(key, made)
	return made, nil
}
