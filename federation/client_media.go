package federation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"conclave/internal/matrix"
)

const (
	mediaTimeout  = 10 * time.Minute
	minMediaSpeed = 1 << 10  // bytes per second
	maxMediaMeta  = 64 << 10 // the JSON part
)

// Media is content of another server on its way here. Type and disposition are what that server says.
type Media struct {
	ContentType        string
	ContentDisposition string
	Body               io.ReadCloser // ends with an error beyond MaxBytes, or if it is too slow
}

// MediaRequest says what is wanted of a content and how much of it is bearable.
type MediaRequest struct {
	Server   matrix.ServerName
	ID       string
	MaxBytes int64
	Wait     time.Duration // for content that is not uploaded yet; 0 is the other server's default

	// Thumbnail, if it is not nil, asks for a small image instead.
	Thumbnail *Thumbnail
}

// Thumbnail is the size and kind of a small image.
type Thumbnail struct {
	Width, Height int
	Method        string // crop or scale
	Animated      bool
}

func (r MediaRequest) values() url.Values {
	v := url.Values{}
	if r.Wait > 0 {
		v.Set("timeout_ms", strconv.FormatInt(r.Wait.Milliseconds(), 10))
	}
	if t := r.Thumbnail; t != nil {
		v.Set("width", strconv.Itoa(t.Width))
		v.Set("height", strconv.Itoa(t.Height))
		v.Set("method", t.Method)
		v.Set("animated", strconv.FormatBool(t.Animated))
	}
	return v
}

// GetContent fetches content or a thumbnail from the server that has it (getContent, getContentThumbnail), falling back
// to the client API's old operations if that server does not know these.
func (c *Client) GetContent(ctx context.Context, r MediaRequest) (*Media, error) {
	operation, verb := "getContent", "download"
	if r.Thumbnail != nil {
		operation, verb = "getContentThumbnail", "thumbnail"
	}
	in := call{
		operation: operation, server: r.Server, method: http.MethodGet, query: r.values(), accept: "multipart/mixed",
		path:   path(v1+"/media/"+verb, r.ID),
		budget: budget{headerTimeout + r.Wait, mediaTimeout, r.MaxBytes + maxMediaMeta},
	}
	res, err := c.do(ctx, in)
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound && refused.Code == "M_UNRECOGNIZED" {
		return c.oldContent(ctx, r, operation, verb)
	}
	if err != nil {
		return nil, err
	}
	m, err := c.twoParts(ctx, res, r.MaxBytes)
	if err != nil {
		_ = res.Body.Close()
		return nil, readFailedAs(ctx, in, err)
	}
	return m, nil
}

// readFailedAs is unusable, except that the caller's end of patience stays what it is.
func readFailedAs(ctx context.Context, in call, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return unusable(in, err)
}

// twoParts reads the multipart answer: JSON, then the content or where it is.
func (c *Client) twoParts(ctx context.Context, res *http.Response, limit int64) (*Media, error) {
	kind, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" || params["boundary"] == "" {
		return nil, errors.New("it is not multipart/mixed with a boundary")
	}
	parts := multipart.NewReader(bufio.NewReader(res.Body), params["boundary"])
	meta, err := parts.NextRawPart()
	if err != nil {
		return nil, fmt.Errorf("the first part: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(meta, maxMediaMeta+1))
	if err == nil {
		err = matrix.CheckJSON(raw, matrix.Limits{Bytes: maxMediaMeta, Depth: maxNesting, Members: 1000})
	}
	if err != nil {
		return nil, fmt.Errorf("the first part: %w", err)
	}
	content, err := parts.NextRawPart()
	if err != nil {
		return nil, fmt.Errorf("the second part: %w", err)
	}
	if at := content.Header.Get("Location"); at != "" {
		_ = res.Body.Close()
		return c.elsewhere(ctx, at, limit)
	}
	return &Media{
		ContentType:        content.Header.Get("Content-Type"),
		ContentDisposition: content.Header.Get("Content-Disposition"),
		Body:               steady(&lastPart{content, parts}, res.Body, limit),
	}, nil
}

// lastPart is a part that ends well only if no other follows it.
type lastPart struct {
	part  io.Reader
	parts *multipart.Reader
}

func (l *lastPart) Read(p []byte) (int, error) {
	n, err := l.part.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	switch _, next := l.parts.NextRawPart(); {
	case next == nil:
		return n, errors.New("it has more than two parts")
	case next != io.EOF: //nolint:errorlint // a wrapped one says that the closing boundary is missing
		return n, next
	}
	return n, io.EOF
}

// elsewhere fetches content from where a server says it is: an ordinary HTTPS address, asked without our name.
func (c *Client) elsewhere(ctx context.Context, at string, limit int64) (*Media, error) {
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("the location is not an https address")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(err)
		return nil, err
	}
	req.Header.Set("User-Agent", c.agent)
	res, err := c.plain.Do(req)
	if err != nil {
		cancel(err)
		return nil, fmt.Errorf("fetching from the location: %w", err)
	}
	body := &boundedBody{body: res.Body, left: limit, ctx: ctx, cancel: cancel, stop: func() { cancel(context.Canceled) }}
	if res.StatusCode != http.StatusOK {
		_ = body.Close()
		return nil, fmt.Errorf("fetching from the location: status %d", res.StatusCode)
	}
	return &Media{
		ContentType:        res.Header.Get("Content-Type"),
		ContentDisposition: res.Header.Get("Content-Disposition"),
		Body:               steady(body, body, limit),
	}, nil
}

// oldContent asks by the deprecated operations of the client API, for content of that server only.
func (c *Client) oldContent(ctx context.Context, r MediaRequest, operation, verb string) (*Media, error) {
	query := r.values()
	query.Set("allow_remote", "false")
	res, err := c.do(ctx, call{
		operation: operation, server: r.Server, method: http.MethodGet, query: query, unsigned: true, accept: "*/*",
		path:   path("/_matrix/media/v3/"+verb, string(r.Server), r.ID),
		budget: budget{headerTimeout + r.Wait, mediaTimeout, r.MaxBytes},
	})
	if err != nil {
		return nil, err
	}
	return &Media{
		ContentType:        res.Header.Get("Content-Type"),
		ContentDisposition: res.Header.Get("Content-Disposition"),
		Body:               steady(res.Body, res.Body, r.MaxBytes),
	}, nil
}

// steadyBody is content that ends with an error if it is longer than allowed or slower than a kilobyte per second.
type steadyBody struct {
	r       io.Reader
	closer  io.Closer
	left    int64
	started time.Time
	read    int64
}

func steady(r io.Reader, closer io.Closer, limit int64) io.ReadCloser {
	return &steadyBody{r: r, closer: closer, left: limit, started: time.Now()}
}

// grace is how long content may be slow before its speed counts.
const grace = 30 * time.Second

func (s *steadyBody) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.read += int64(n)
	if s.read > s.left {
		return 0, errTooLarge
	}
	if took := time.Since(s.started); took > grace && float64(s.read) < took.Seconds()*minMediaSpeed {
		return 0, errIdleTimeout
	}
	return n, err
}

func (s *steadyBody) Close() error { return s.closer.Close() }
