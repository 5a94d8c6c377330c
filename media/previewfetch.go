package media

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"conclave/internal/matrix"
	"conclave/internal/netguard"
	"conclave/internal/store"
)

// Web is the World Wide Web as this domain needs it: a client of netguard that follows no redirect by itself. It is the
// last to judge an address, when it connects.
type Web interface {
	Do(*http.Request) (*http.Response, error)
}

// Bounds of what is fetched for a preview (threats section 1).
const (
	previewHops     = 3        // redirects
	maxPage         = 1 << 20  // bytes of HTML, packed and unpacked
	maxPreviewImage = 10 << 20 // bytes
	maxPageURL      = 2048
	maxLanguage     = 100
)

// parse reads the address of a page as a client gives it, in the spelling by which it is remembered.
func (p *previews) parse(text string) (*url.URL, error) {
	if text == "" {
		return nil, matrix.MissingParam("The parameter url is missing: the address of the page.")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, matrix.InvalidParam("The parameter url is not an address.")
	}
	if err := p.check(u); err != nil {
		return nil, err
	}
	u.Host = strings.ToLower(u.Host)
	if port := u.Port(); port == "80" && u.Scheme == "http" || port == "443" && u.Scheme == "https" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// check refuses addresses that no page is fetched from, wherever they come from: a client, a redirect or a page.
func (p *previews) check(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return matrix.InvalidParam("Previews are of addresses that begin with https:// or http:// and a name.")
	case u.User != nil:
		return matrix.InvalidParam("There is no preview of an address with a user name in it.")
	case u.Port() != "" && !slices.Contains(p.ports, u.Port()):
		return matrix.InvalidParam("There is no preview of an address with this port.")
	case len(u.String()) > maxPageURL:
		return matrix.InvalidParam("There is no preview of an address of more than %d bytes.", maxPageURL)
	}
	return nil
}

// languageForm is one entry of an Accept-Language header (RFC 9110 section 12.5.4).
var languageForm = regexp.MustCompile(`^(\*|[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*)(;q=[01](\.[0-9]{1,3})?)?$`)

// validLanguage is an Accept-Language header as it may be sent on, "" if it is not one. It is all that a site learns of
// the person who asks.
func validLanguage(header string) string {
	if len(header) > maxLanguage {
		return ""
	}
	parts := strings.Split(header, ",")
	for i, part := range parts {
		if parts[i] = strings.ReplaceAll(part, " ", ""); !languageForm.MatchString(parts[i]) {
			return ""
		}
	}
	return strings.Join(parts, ",")
}

// Why a page cannot be looked at. Clients are not told (errNoPreview).
var (
	errAddress    = errors.New("media: nothing is fetched from this address")
	errHops       = errors.New("media: too many redirects")
	errDowngrade  = errors.New("media: a redirect leads from https to http")
	errStatus     = errors.New("media: the page is not there")
	errNotPreview = errors.New("media: there are no previews of this type of content")
)

// ownFault is an error of ours on the way to a preview: it is the server's to log, and no reason to remember that the page
// has none.
type ownFault struct{ error }

// Unwrap gives the error itself.
func (o ownFault) Unwrap() error { return o.error }

// trip is what happens for one preview.
type trip struct {
	m        *Media
	language string
	bytes    int64 // that were read, unpacked
}

// look fetches a page and what it shows.
func (t *trip) look(ctx context.Context, target *url.URL) (*preview, error) {
	res, at, err := t.fetch(ctx, target, "text/html,application/xhtml+xml,image/png,image/jpeg,image/webp,image/gif;q=0.9,*/*;q=0.1")
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	made := &preview{told: Preview{}, until: t.m.previews.now().Add(previewLife)}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case strings.HasPrefix(kind, "image/"):
		return made, t.picture(ctx, res, made)
	case kind != "text/html" && kind != "application/xhtml+xml":
		return nil, errNotPreview
	}
	body, err := t.body(res, maxPage)
	if err != nil {
		return nil, err
	}
	head, err := readHead(io.LimitReader(body, maxPage), res.Header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	head.tell(made.told)
	_ = res.Body.Close() // a page that is longer than its head ends here
	if address := head.image(at); address != nil {
		if err := t.pictureAt(ctx, address, made); err != nil {
			// What the page says is worth showing all the same, but its picture may come later.
			made.until = t.m.previews.now().Add(previewRetry)
			if errors.As(err, new(ownFault)) {
				t.m.o.Log.Warn("storing the picture of a preview failed", "err", err)
			}
		} else if alt := head.said["og:image:alt"]; alt != "" {
			made.told["og:image:alt"] = alt
		}
	}
	return made, nil
}

// pictureAt fetches the picture that a page names.
func (t *trip) pictureAt(ctx context.Context, address *url.URL, made *preview) error {
	if t.m.previews.check(address) != nil {
		return errAddress
	}
	res, _, err := t.fetch(ctx, address, "image/png,image/jpeg,image/webp,image/gif;q=0.9")
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	return t.picture(ctx, res, made)
}

// picture stores an answer as the picture of a preview, if it is one of a kind that thumbnails are made of. Its bytes say
// which kind that is, not its sender.
func (t *trip) picture(ctx context.Context, res *http.Response, made *preview) error {
	limit := min(maxPreviewImage, t.m.max)
	if res.ContentLength > limit {
		return errLong
	}
	body, err := t.body(res, limit)
	if err != nil {
		return err
	}
	d, err := t.m.blobs.draft()
	if err != nil {
		return ownFault{explain(err)}
	}
	seen, err := keepPicture(ctx, d, body, limit)
	if err != nil {
		t.m.release(d.drop)
		return err
	}
	now := t.m.nowMS()
	row := store.Media{
		Origin: t.m.o.Server, ID: newID(), File: d.key, Hash: d.sum.Sum(nil), Size: d.size, Type: "image/" + seen.format, Created: now, Used: now,
	}
	ctx = context.WithoutCancel(ctx) // the time is that of the web, not of the database
	if err := t.m.commit(ctx, d, func(tx *store.Tx) (bool, error) { return tx.AddMedia(row) }); err != nil {
		return ownFault{err}
	}
	t.m.makeRoom(ctx, row.Size)
	made.image = row.ID
	made.told["og:image"], made.told["og:image:type"] = t.m.URI(row.ID), row.Type
	made.told["og:image:width"], made.told["og:image:height"] = seen.width, seen.height
	made.told["matrix:image:size"] = row.Size
	return nil
}

// keepPicture writes a picture to its file, and looks at its head before it gets its name.
func keepPicture(ctx context.Context, d *draft, body io.Reader, limit int64) (imageHead, error) {
	if err := d.fill(body, limit); err != nil {
		if full := explain(err); full != err {
			return imageHead{}, ownFault{full}
		}
		return imageHead{}, err
	}
	deadline, _ := ctx.Deadline()
	seen, err := inspect(d.file, deadline)
	if err != nil {
		return imageHead{}, err
	}
	if err := d.keep(ctx); err != nil {
		return imageHead{}, ownFault{explain(err)}
	}
	return seen, nil
}

// fetch asks for an address and follows redirects, each looked at as if a client had named it. It returns where it has
// arrived; the caller closes the body.
func (t *trip) fetch(ctx context.Context, target *url.URL, accept string) (*http.Response, *url.URL, error) {
	for range 1 + previewHops {
		res, err := t.get(ctx, target, accept)
		if err != nil {
			return nil, nil, err
		}
		if res.StatusCode/100 == 2 {
			return res, target, nil
		}
		_ = res.Body.Close() // nothing of it is read
		if target, err = t.next(target, res); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, errHops
}

// next is where an answer redirects to.
func (t *trip) next(from *url.URL, res *http.Response) (*url.URL, error) {
	switch res.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, errStatus
	}
	location := res.Header.Get("Location")
	if location == "" {
		return nil, errStatus
	}
	to, err := from.Parse(location)
	if err != nil {
		return nil, err
	}
	if from.Scheme == "https" && to.Scheme != "https" {
		return nil, errDowngrade
	}
	to.Fragment, to.RawFragment = "", ""
	if t.m.previews.check(to) != nil {
		return nil, errAddress // the client did not name it, and does not learn of it
	}
	return to, nil
}

// get makes one request. Nothing in it is of the person who asks but the language.
func (t *trip) get(ctx context.Context, target *url.URL, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", previewAgent)
	req.Header.Set("Accept", accept)
	if t.language != "" {
		req.Header.Set("Accept-Language", t.language)
	}
	return t.m.previews.web.Do(req)
}

// previewAgent is the same for every server of every version: a site learns that it is asked for a preview.
const previewAgent = "Conclave (preview of a link)"

// body is an answer's content, unpacked and counted. The caller reads no more than limit of it.
func (t *trip) body(res *http.Response, limit int64) (io.Reader, error) {
	content, err := netguard.Decoded(res, limit)
	return &counted{content, &t.bytes}, err
}

// counted adds up what is read.
type counted struct {
	io.Reader
	n *int64
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.n += int64(n)
	return n, err
}
