package clientapi

import (
	"encoding/hex"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"conclave/internal/matrix"
	"conclave/media"
)

// The unauthenticated operations of /_matrix/media are frozen (client-server API, "Content repository"): no content of
// this server is older than the freeze, so they know nothing. To older clients that send a token all the same they are
// what the operations of /_matrix/client/v1/media are.
var mediaRoutes = slices.Concat(
	[]Route{
		{Method: post, Path: "/_matrix/media/v3/upload", Aliases: []string{"/_matrix/media/r0/upload"}, OperationID: "uploadContent",
			Auth: Token, Limit: LimitMedia, Body: countedByMedia, Handler: (*Server).uploadContent},
		{Method: put, Path: "/_matrix/media/v3/upload/:serverName/:mediaId", OperationID: "uploadContentToMXC",
			Auth: Token, Limit: LimitMedia, Body: countedByMedia, Handler: (*Server).uploadContentToMXC},
		{Method: post, Path: "/_matrix/media/v1/create", OperationID: "createContent", Auth: Token, Limit: LimitMedia, Handler: (*Server).createContent},
		{Method: get, Path: "/_matrix/client/v1/media/config", OperationID: "getConfigAuthed", Auth: Token, Limit: LimitRead, Handler: (*Server).getMediaConfig},
		{Method: get, Path: "/_matrix/media/v3/config", Aliases: []string{"/_matrix/media/r0/config"}, OperationID: "getConfig",
			Auth: Token, Limit: LimitRead, Handler: (*Server).getMediaConfig},
		{Method: get, Path: "/_matrix/client/v1/media/preview_url", OperationID: "getUrlPreviewAuthed",
			Auth: Token, Limit: LimitPreview, Handler: (*Server).getURLPreview},
		{Method: get, Path: "/_matrix/media/v3/preview_url", Aliases: []string{"/_matrix/media/r0/preview_url"}, OperationID: "getUrlPreview",
			Auth: Token, Limit: LimitPreview, Handler: (*Server).getURLPreview},
	},
	serving("/_matrix/client/v1/media", "/download/:serverName/:mediaId", "getContentAuthed", Token, (*Server).getContent),
	serving("/_matrix/client/v1/media", "/download/:serverName/:mediaId/:fileName", "getContentOverrideNameAuthed", Token, (*Server).getContent),
	serving("/_matrix/client/v1/media", "/thumbnail/:serverName/:mediaId", "getContentThumbnailAuthed", Token, (*Server).getContentThumbnail),
	serving("/_matrix/media/v3", "/download/:serverName/:mediaId", "getContent", OptionalToken, frozen((*Server).getContent)),
	serving("/_matrix/media/v3", "/download/:serverName/:mediaId/:fileName", "getContentOverrideName", OptionalToken, frozen((*Server).getContent)),
	serving("/_matrix/media/v3", "/thumbnail/:serverName/:mediaId", "getContentThumbnail", OptionalToken, frozen((*Server).getContentThumbnail)),
)

// countedByMedia is for bodies of any size that never are in memory: the media domain counts them by the configuration.
const countedByMedia = math.MaxInt64

// serving declares an operation that answers with a file, for GET and HEAD.
func serving(base, path, id string, auth Auth, handler func(*Server, *Request) (any, error)) []Route {
	r := Route{Method: get, Path: base + path, OperationID: id, Auth: auth, Limit: LimitMedia, Handler: handler}
	if base == "/_matrix/media/v3" {
		r.Aliases = []string{"/_matrix/media/r0" + path}
	}
	head := r
	head.Method = http.MethodHead
	return []Route{r, head}
}

// frozen answers who sends no token as if there were no content.
func frozen(handler func(*Server, *Request) (any, error)) func(*Server, *Request) (any, error) {
	return func(s *Server, r *Request) (any, error) {
		if r.Session == nil {
			return nil, matrix.NotFound("Content is here for those who are logged in: /_matrix/client/v1/media.")
		}
		return handler(s, r)
	}
}

// How patient the server is with slow clients.
const (
	uploadIdle    = 20 * time.Second // between two pieces of an upload
	downloadGrace = 2 * time.Minute
	downloadSpeed = 16 << 10 // bytes per second at least, beyond the grace
)

// upload is the request's body as the media domain takes it.
func (s *Server) upload(r *Request) media.Upload {
	req := r.Request()
	return media.Upload{
		Type: req.Header.Get("Content-Type"), Name: r.QueryParam("filename"), Length: req.ContentLength,
		Body: &patientReader{req.Body, http.NewResponseController(r.Response())},
	}
}

// patientReader gives a client some time for each piece that it sends.
type patientReader struct {
	r       io.Reader
	control *http.ResponseController
}

func (p *patientReader) Read(b []byte) (int, error) {
	p.wait()
	return p.read(b)
}

func (p *patientReader) wait() {
	_ = p.control.SetReadDeadline(time.Now().Add(uploadIdle)) // not every connection has deadlines
}

func (p *patientReader) read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if errors.Is(err, io.EOF) { // else the deadline stays: what is left of the body is not waited for either
		_ = p.control.SetReadDeadline(time.Time{})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// uploadContent is POST /_matrix/media/v3/upload.
func (s *Server) uploadContent(r *Request) (any, error) {
	id, err := s.Media.Upload(r.Ctx(), r.Session.User, s.upload(r))
	return map[string]string{"content_uri": s.Media.URI(id)}, err
}

// createContent is POST /_matrix/media/v1/create.
func (s *Server) createContent(r *Request) (any, error) {
	id, expires, err := s.Media.Reserve(r.Ctx(), r.Session.User)
	return map[string]any{"content_uri": s.Media.URI(id), "unused_expires_at": expires}, err
}

// uploadContentToMXC is PUT /_matrix/media/v3/upload/{serverName}/{mediaId}.
func (s *Server) uploadContentToMXC(r *Request) (any, error) {
	return nil, s.Media.Fill(r.Ctx(), r.Session.User, matrix.ServerName(r.Param("serverName")), r.Param("mediaId"), s.upload(r))
}

// getMediaConfig is GET /_matrix/client/v1/media/config.
func (s *Server) getMediaConfig(*Request) (any, error) {
	return map[string]int64{"m.upload.size": s.Media.MaxUpload()}, nil
}

// getURLPreview is GET /_matrix/client/v1/media/preview_url, and its older place. ts, the time that a preview is wanted of,
// may be answered with the newest, and is: pages have no other.
func (s *Server) getURLPreview(r *Request) (any, error) {
	if ts := r.QueryParam("ts"); ts != "" {
		if _, err := strconv.ParseInt(ts, 10, 64); err != nil {
			return nil, matrix.InvalidParam("ts is not a time in milliseconds.")
		}
	}
	return s.Media.Preview(r.Ctx(), media.PreviewQuery{
		URL: r.QueryParam("url"), Language: r.Request().Header.Get("Accept-Language"), User: r.Session.User,
	})
}

// contentQuery reads which content a request is about.
func contentQuery(r *Request) (media.Query, error) {
	q := media.Query{
		Server: matrix.ServerName(r.Param("serverName")), ID: r.Param("mediaId"), User: r.Session.User,
		Remote: r.QueryParam("allow_remote") != "false", Wait: 20 * time.Second,
	}
	if text := r.QueryParam("timeout_ms"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return q, matrix.InvalidParam("timeout_ms is not a number of milliseconds.")
		}
		q.Wait = time.Duration(ms) * time.Millisecond
	}
	return q, nil
}

// getContent is GET /_matrix/client/v1/media/download/{serverName}/{mediaId}, with or without a file name.
func (s *Server) getContent(r *Request) (any, error) {
	q, err := contentQuery(r)
	if err != nil {
		return nil, err
	}
	c, err := s.Media.Open(r.Ctx(), q)
	if err != nil {
		return nil, err
	}
	if name := r.Param("fileName"); name != "" {
		c.Name = name
	}
	return s.serveFile(r, c), nil
}

// getContentThumbnail is GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}. A thumbnail moves only where
// "animated" is true.
func (s *Server) getContentThumbnail(r *Request) (any, error) {
	q, err := contentQuery(r)
	if err != nil {
		return nil, err
	}
	size, err := media.ParseSize(r.QueryParam("width"), r.QueryParam("height"), r.QueryParam("method"), r.QueryParam("animated"))
	if err != nil {
		return nil, err
	}
	c, err := s.Media.Thumbnail(r.Ctx(), q, size)
	if err != nil {
		return nil, err
	}
	return s.serveFile(r, c), nil
}

// contentPolicy keeps a browser from doing anything with a file but show it (threats M02).
const contentPolicy = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';"

// serveFile answers with a file, or the part of it that was asked for. A content never changes.
func (s *Server) serveFile(r *Request, c *media.Content) Done {
	return s.serveKept(r, c, "private, max-age=31536000, immutable")
}

// serveKept is serveFile for what may be kept for a while, or not at all (Cache-Control).
func (s *Server) serveKept(r *Request, c *media.Content, kept string) Done {
	defer func() { _ = c.File.Close() }()
	patience := downloadGrace + time.Duration(c.Size/downloadSpeed)*time.Second
	_ = http.NewResponseController(r.Response()).SetWriteDeadline(time.Now().Add(patience))
	h := r.Response().Header()
	h.Set("Content-Type", c.Type)
	h.Set("Content-Disposition", media.Disposition(c.Type, c.Name))
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	if h.Get("Cross-Origin-Resource-Policy") == "" { // what a page's visitor gets is for that page alone
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	}
	h.Set("Access-Control-Expose-Headers", "Content-Disposition, Content-Length, Content-Range, ETag")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", kept)
	h.Set("ETag", `"`+hex.EncodeToString(c.Hash)+`"`)
	req := r.Request()
	if strings.Contains(req.Header.Get("Range"), ",") {
		// Many parts of a file would be as many requests to the store of files. Whoever asks may be given the whole (RFC 9110
		// section 14.2), and every part by itself.
		req = req.Clone(req.Context())
		req.Header.Del("Range")
	}
	http.ServeContent(fileWriter{r.Response()}, req, "", time.Time{}, c.File)
	return Done{}
}

// fileWriter lets the connection take bytes from the file by itself (sendfile).
type fileWriter struct{ *echo.Response }

// ReadFrom implements io.ReaderFrom.
func (f fileWriter) ReadFrom(r io.Reader) (int64, error) {
	if !f.Committed {
		f.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(f.Writer, r)
	f.Size += n
	return n, err
}
