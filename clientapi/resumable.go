package clientapi

import (
	"crypto/sha1" //nolint:gosec // tus asks for it, against accidents on the way
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"conclave/internal/matrix"
	"conclave/media"
)

// Uploads of many gigabytes, which go on where they were cut off: the tus protocol 1.0 (https://tus.io/protocols/resumable-upload)
// with its extensions creation, termination, expiration and checksum. POST announces an upload, PATCH brings bytes, HEAD
// says how many are durable, DELETE gives it up. When all are there the upload is an ordinary content: the answer of the
// last PATCH, and of HEAD and GET from then on, names its mxc URI. Errors are those of the client API.
const uploadsPath = "/_matrix/client/unstable/im.conclave.media/upload"

var resumableRoutes = []Route{
	{Method: post, Path: uploadsPath, OperationID: "im.conclave.createUpload", Auth: Token, Limit: LimitMedia, Handler: tus((*Server).createUpload)},
	{Method: http.MethodHead, Path: uploadsPath + "/:uploadId", OperationID: "im.conclave.uploadOffset", Auth: Token, Limit: LimitMedia, Handler: tus((*Server).uploadOffset)},
	{Method: get, Path: uploadsPath + "/:uploadId", OperationID: "im.conclave.uploadProgress", Auth: Token, Limit: LimitMedia, Handler: (*Server).uploadProgress},
	{Method: http.MethodPatch, Path: uploadsPath + "/:uploadId", OperationID: "im.conclave.continueUpload", Auth: Token, Limit: LimitMedia,
		Body: countedByMedia, Handler: tus((*Server).continueUpload)},
	{Method: del, Path: uploadsPath + "/:uploadId", OperationID: "im.conclave.endUpload", Auth: Token, Limit: LimitMedia, Handler: tus((*Server).endUpload)},
}

const (
	tusVersion    = "1.0.0"
	tusExtensions = "creation,termination,expiration,checksum"
	tusChecksums  = "sha1,sha256"
	tusBody       = "application/offset+octet-stream"
	uriHeader     = "Im-Conclave-Content-Uri" // names the content of a complete upload
	maxMetadata   = 4 << 10                   // bytes of the header
)

// tusHead sets the headers that every answer about uploads has, and reads the method that a client meant which cannot
// send it.
func (s *Server) tusHead(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != uploadsPath && !strings.HasPrefix(req.URL.Path, uploadsPath+"/") {
		return
	}
	h := w.Header()
	h.Set("Tus-Resumable", tusVersion)
	h.Set("Access-Control-Expose-Headers", "Location, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, "+
		"Upload-Offset, Upload-Length, Upload-Metadata, Upload-Expires, "+uriHeader)
	h.Set("Cache-Control", "no-store")
	if meant := req.Header.Get("X-HTTP-Method-Override"); req.Method == post && (meant == http.MethodPatch || meant == del) {
		req.Method = meant
	}
	if req.Method != http.MethodOptions {
		return
	}
	h.Set("Access-Control-Allow-Headers", h.Get("Access-Control-Allow-Headers")+
		", Tus-Resumable, Upload-Length, Upload-Offset, Upload-Metadata, Upload-Checksum, X-HTTP-Method-Override")
	h.Set("Tus-Version", tusVersion)
	h.Set("Tus-Extension", tusExtensions)
	h.Set("Tus-Max-Size", strconv.FormatInt(s.Media.MaxResumable(), 10))
	h.Set("Tus-Checksum-Algorithm", tusChecksums)
}

// tus refuses requests of another version of the protocol.
func tus(handler func(*Server, *Request) (any, error)) func(*Server, *Request) (any, error) {
	return func(s *Server, r *Request) (any, error) {
		if r.Request().Header.Get("Tus-Resumable") != tusVersion {
			r.Response().Header().Set("Tus-Version", tusVersion)
			return nil, matrix.Errorf(http.StatusPreconditionFailed, "M_UNKNOWN", "Uploads are here by version %s of the tus protocol.", tusVersion)
		}
		return handler(s, r)
	}
}

// createUpload is POST …/upload.
func (s *Server) createUpload(r *Request) (any, error) {
	h := r.Request().Header
	length, err := count(h, "Upload-Length")
	if err != nil {
		return nil, err
	}
	in, err := uploadMetadata(h.Get("Upload-Metadata"))
	if err != nil {
		return nil, err
	}
	in.Length = length
	p, err := s.Media.Begin(r.Ctx(), r.Session.User, in)
	if err != nil {
		return nil, err
	}
	r.Response().Header().Set("Location", uploadsPath+"/"+p.ID)
	return told(r, http.StatusCreated, p), nil
}

// uploadOffset is HEAD …/upload/{uploadId}.
func (s *Server) uploadOffset(r *Request) (any, error) {
	p, err := s.Media.Progress(r.Ctx(), r.Session.User, r.Param("uploadId"))
	if err != nil {
		return nil, err
	}
	r.Response().Header().Set("Upload-Length", strconv.FormatInt(p.Length, 10))
	if text := metadataText(p); text != "" {
		r.Response().Header().Set("Upload-Metadata", text)
	}
	return told(r, http.StatusOK, p), nil
}

// uploadProgress is GET …/upload/{uploadId}, which is not of tus.
func (s *Server) uploadProgress(r *Request) (any, error) {
	p, err := s.Media.Progress(r.Ctx(), r.Session.User, r.Param("uploadId"))
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"upload_offset": p.Received, "upload_length": p.Length}
	if p.URI != "" {
		answer["content_uri"] = p.URI
	} else {
		answer["expires_at"] = p.Expires
	}
	return answer, nil
}

// continueUpload is PATCH …/upload/{uploadId}.
func (s *Server) continueUpload(r *Request) (any, error) {
	req := r.Request()
	if kind, _, _ := strings.Cut(req.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != tusBody {
		return nil, matrix.Errorf(http.StatusUnsupportedMediaType, "M_UNKNOWN", "The bytes of an upload have the content type %s.", tusBody)
	}
	offset, err := count(req.Header, "Upload-Offset")
	if err != nil {
		return nil, err
	}
	body := &stoppable{patientReader: patientReader{req.Body, http.NewResponseController(r.Response())}}
	c := media.Chunk{Offset: offset, Length: req.ContentLength, Body: body, Stop: body.stop}
	if c.Sum, c.Want, err = checksum(req.Header.Get("Upload-Checksum")); err != nil {
		return nil, err
	}
	p, err := s.Media.Continue(r.Ctx(), r.Session.User, r.Param("uploadId"), c)
	if err != nil {
		return nil, err
	}
	return told(r, http.StatusNoContent, p), nil
}

// endUpload is DELETE …/upload/{uploadId}.
func (s *Server) endUpload(r *Request) (any, error) {
	if err := s.Media.GiveUp(r.Ctx(), r.Session.User, r.Param("uploadId")); err != nil {
		return nil, err
	}
	r.Response().WriteHeader(http.StatusNoContent)
	return Done{}, nil
}

// told answers with how far an upload has come.
func told(r *Request, status int, p *media.Progress) Done {
	h := r.Response().Header()
	h.Set("Upload-Offset", strconv.FormatInt(p.Received, 10))
	if p.URI != "" {
		h.Set(uriHeader, p.URI)
	} else {
		h.Set("Upload-Expires", time.UnixMilli(p.Expires).UTC().Format(http.TimeFormat))
	}
	r.Response().WriteHeader(status)
	return Done{}
}

// count reads a header that is a number of bytes.
func count(h http.Header, name string) (int64, error) {
	n, err := strconv.ParseInt(h.Get(name), 10, 64)
	if err != nil || n < 0 {
		return 0, matrix.InvalidParam("The header %s is not a number of bytes.", name)
	}
	return n, nil
}

// uploadMetadata reads the header Upload-Metadata: names, each with a text in base64. filename, filetype and sha256 (64
// hexadecimal digits) are known; others are for the client alone, and are not kept.
func uploadMetadata(header string) (in media.Resumable, err error) {
	bad := matrix.InvalidParam("The header Upload-Metadata is not what tus says, or longer than %d bytes.", maxMetadata)
	if len(header) > maxMetadata {
		return in, bad
	}
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(header, ",") {
		name, packed, _ := strings.Cut(strings.TrimSpace(pair), " ")
		value, err := base64.StdEncoding.DecodeString(packed)
		if err != nil || seen[name] || name == "" && header != "" {
			return in, bad
		}
		seen[name] = true
		switch name {
		case "filename":
			in.Name = string(value)
		case "filetype":
			in.Type = string(value)
		case "sha256":
			if in.SHA256, err = hex.DecodeString(string(value)); err != nil {
				return in, bad
			}
		}
	}
	return in, nil
}

// metadataText is what is kept of Upload-Metadata, as that header has it.
func metadataText(p *media.Progress) string {
	var pairs []string
	for _, pair := range [][2]string{{"filename", p.Name}, {"filetype", p.Type}, {"sha256", hex.EncodeToString(p.SHA256)}} {
		if pair[1] != "" {
			pairs = append(pairs, pair[0]+" "+base64.StdEncoding.EncodeToString([]byte(pair[1])))
		}
	}
	return strings.Join(pairs, ",")
}

// checksum reads the header Upload-Checksum: an algorithm and the sum of the request's bytes.
func checksum(header string) (hash.Hash, []byte, error) {
	if header == "" {
		return nil, nil, nil
	}
	algorithm, packed, _ := strings.Cut(header, " ")
	var sum hash.Hash
	switch algorithm {
	case "sha1":
		sum = sha1.New() //nolint:gosec // see above
	case "sha256":
		sum = sha256.New()
	default:
		return nil, nil, matrix.InvalidParam("Upload-Checksum is %s here.", strings.ReplaceAll(tusChecksums, ",", " or "))
	}
	want, err := base64.StdEncoding.DecodeString(packed)
	if err != nil || len(want) != sum.Size() {
		return nil, nil, matrix.InvalidParam("Upload-Checksum is not a sum in base64.")
	}
	return sum, want, nil
}

// stoppable is a body whose reading can be made to fail from elsewhere.
type stoppable struct {
	patientReader
	mu      sync.Mutex
	stopped bool
}

// Read implements io.Reader.
func (s *stoppable) Read(p []byte) (int, error) {
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return 0, io.ErrUnexpectedEOF
	}
	s.wait()
	s.mu.Unlock()
	return s.read(p)
}

// stop makes the present read fail, and those that follow.
func (s *stoppable) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	_ = s.control.SetReadDeadline(time.Now()) // without deadlines it ends when the client sends or goes
}
