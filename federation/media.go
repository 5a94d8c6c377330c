package federation

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"time"

	"conclave/internal/matrix"
	"conclave/media"
)

var mediaRoutes = []Route{
	{Method: "GET", Path: v1 + "/media/download/{mediaId}", OperationID: "getContent", Auth: AuthServer, PerOrigin: mediaPerOrigin, Handler: (*Server).getContent},
	{Method: "GET", Path: v1 + "/media/thumbnail/{mediaId}", OperationID: "getContentThumbnail", Auth: AuthServer, PerOrigin: mediaPerOrigin, Handler: (*Server).getContentThumbnail},
}

// How media is given to other servers.
const (
	mediaPerOrigin = 16
	mediaGrace     = 2 * time.Minute
	mediaSpeed     = 16 << 10 // bytes per second that another server takes at least, beyond the grace
)

// contentQuery reads which of our contents a server asks for. Contents of others it must ask elsewhere.
func (s *Server) contentQuery(r *Request) (media.Query, error) {
	q := media.Query{Server: s.own.Name(), ID: r.Param("mediaId"), Wait: 20 * time.Second}
	if text := r.URL.Query().Get("timeout_ms"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return q, matrix.InvalidParam("timeout_ms is not a number of milliseconds.")
		}
		q.Wait = time.Duration(ms) * time.Millisecond
	}
	return q, nil
}

func (s *Server) getContent(r *Request) (any, error) {
	q, err := s.contentQuery(r)
	if err != nil {
		return nil, err
	}
	c, err := s.options.Media.Open(r.Context(), q)
	if err != nil {
		return nil, err
	}
	return Done, s.writeContent(r.Writer, c)
}

func (s *Server) getContentThumbnail(r *Request) (any, error) {
	q, err := s.contentQuery(r)
	if err != nil {
		return nil, err
	}
	query := r.URL.Query()
	size, err := media.ParseSize(query.Get("width"), query.Get("height"), query.Get("method"), query.Get("animated"))
	if err != nil {
		return nil, err
	}
	c, err := s.options.Media.Thumbnail(r.Context(), q, size)
	if err != nil {
		return nil, err
	}
	return Done, s.writeContent(r.Writer, c)
}

// writeContent writes the two parts of an answer: what is known of the content, which is nothing yet, and the content.
func (s *Server) writeContent(w http.ResponseWriter, c *media.Content) error {
	defer func() { _ = c.File.Close() }()
	patience := mediaGrace + time.Duration(c.Size/mediaSpeed)*time.Second
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience))
	parts := multipart.NewWriter(w)
	w.Header().Set("Content-Type", mime.FormatMediaType("multipart/mixed", map[string]string{"boundary": parts.Boundary()}))
	about, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	if err == nil {
		_, err = io.WriteString(about, "{}")
	}
	var content io.Writer
	if err == nil {
		content, err = parts.CreatePart(textproto.MIMEHeader{
			"Content-Type": {c.Type}, "Content-Disposition": {media.Disposition(c.Type, c.Name)},
		})
	}
	if err == nil {
		_, err = io.Copy(content, c.File)
	}
	if err == nil {
		err = parts.Close()
	}
	if err != nil { // the answer has begun: all that is left is to break it off, so that nobody takes it for whole
		s.log.Debug("content was not sent whole", "err", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// MediaSource fetches the contents of other servers for the media domain.
type MediaSource struct{ *Client }

// Fetch implements media.Remote.
func (s MediaSource) Fetch(ctx context.Context, server matrix.ServerName, id string, limit int64, wait time.Duration) (*media.Fetched, error) {
	m, err := s.GetContent(ctx, MediaRequest{Server: server, ID: id, MaxBytes: limit, Wait: wait})
	var refused *Error
	switch {
	case err == nil:
		_, params, _ := mime.ParseMediaType(m.ContentDisposition) // a stranger's word: without a name if it cannot be read
		return &media.Fetched{Type: m.ContentType, Name: params["filename"], Body: mediaBody{m.Body}}, nil
	case !errors.As(err, &refused):
		return nil, err
	case errors.Is(refused, errTooLarge):
		return nil, matrix.Errorf(http.StatusBadGateway, "M_TOO_LARGE", "The file is larger than the %d bytes that this server fetches.", limit).With(err)
	case refused.Status == http.StatusNotFound:
		return nil, matrix.NotFound("The server %s has no such content.", server).With(err)
	case refused.Status == http.StatusGatewayTimeout && refused.Code == "M_NOT_YET_UPLOADED":
		return nil, matrix.Errorf(http.StatusGatewayTimeout, "M_NOT_YET_UPLOADED", "The content has not been uploaded yet.").With(err)
	}
	return nil, matrix.Errorf(http.StatusBadGateway, "M_UNKNOWN", "The server %s cannot be reached or did not answer as it should.", server).With(err)
}

// mediaBody tells the media domain in its own words that a content is too long.
type mediaBody struct{ io.ReadCloser }

func (b mediaBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, errTooLarge) {
		err = media.ErrTooLong
	}
	return n, err
}
