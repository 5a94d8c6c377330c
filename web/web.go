// Package web holds the browser client: its sources, and in dist, which `npm run build` fills, the pages that the
// executable carries and Handler serves.
//
// Script that ran in these pages could use a person's keys. What Handler sends with them is therefore part of the
// encryption's promise: a policy under which no script but the embedded one runs, no string becomes markup, no other
// site frames or reads a page, and no page is kept in a cache after an update.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed all:dist
var dist embed.FS

// policy is the Content-Security-Policy of the client. Styles are set through the CSSOM, which it does not touch;
// pictures and media are blobs that the client has decrypted; the socket goes to the same origin. The one Trusted
// Types policy makes the addresses of workers, from a fixed list.
var policy = strings.Join([]string{
	"default-src 'none'",
	"script-src 'self'",
	"style-src 'self'",
	"img-src 'self' blob:",
	"media-src blob:",
	"font-src 'self'",
	"connect-src 'self'",
	"worker-src 'self'",
	"manifest-src 'self'",
	"base-uri 'none'",
	"form-action 'none'",
	"frame-ancestors 'none'",
	"require-trusted-types-for 'script'",
	"trusted-types conclave",
}, "; ")

// types of the files that a build writes. The table of the system is not asked: it differs from machine to machine.
var types = map[string]string{
	".html":        "text/html; charset=utf-8",
	".js":          "text/javascript; charset=utf-8",
	".css":         "text/css; charset=utf-8",
	".json":        "application/json",
	".svg":         "image/svg+xml",
	".png":         "image/png",
	".woff2":       "font/woff2",
	".webmanifest": "application/manifest+json",
}

// file is one file of the build with its compressed forms, ready to be sent.
type file struct {
	contentType string
	etag        string
	body        []byte
	encoded     map[string][]byte // by content coding
}

type site struct{ files map[string]*file }

// Handler serves the embedded client: its files, and its page for every other path that has no extension, since the
// client's own addresses are paths. An executable built without the client answers with one line that says so.
func Handler() http.Handler {
	built, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the folder is named in the embed directive above
	}
	return newSite(built)
}

func newSite(root fs.FS) *site {
	s := &site{files: map[string]*file{}}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		contentType, known := types[path.Ext(name)]
		if err != nil || entry.IsDir() || !known {
			return err
		}
		body, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		f := &file{contentType: contentType, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, body: body, encoded: map[string][]byte{}}
		for coding, extension := range map[string]string{"br": ".br", "gzip": ".gz"} {
			if encoded, err := fs.ReadFile(root, name+extension); err == nil && len(encoded) < len(body) {
				f.encoded[coding] = encoded
			}
		}
		s.files["/"+name] = f
		return nil
	})
	if err != nil {
		panic(err) // reading memory
	}
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		plain(w, http.StatusMethodNotAllowed, "This address is only read.")
		return
	}
	name := path.Clean("/" + r.URL.Path)
	f, found := s.files[name]
	switch {
	case found && name != "/index.html":
	case !page(name):
		plain(w, http.StatusNotFound, "There is nothing here.")
		return
	default:
		if f, found = s.files["/index.html"]; !found {
			plain(w, http.StatusServiceUnavailable, "This server was built without its web client: run `make build`.")
			return
		}
		name = "/index.html"
	}
	cache(w.Header(), name, f)
	if name != "/index.html" && strings.Contains(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	f.send(w, r)
}

// page tells whether a path without a file is one of the client's own addresses. The paths of the API are not, nor is
// a file that an older page asks for after an update: it must fail there instead of receiving a page.
func page(name string) bool {
	if strings.HasPrefix(name, "/_") || strings.HasPrefix(name, "/.") || strings.HasPrefix(name, "/assets/") {
		return false
	}
	return name == "/index.html" || path.Ext(name) == "" || strings.HasPrefix(name, "/room/")
}

func secure(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Embedder-Policy", "require-corp")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
}

// cache: files under /assets bear a hash of their content in their name and never change; the page that names them is
// never kept; the few others are asked for again.
func cache(h http.Header, name string, f *file) {
	switch {
	case name == "/index.html":
		h.Set("Cache-Control", "no-store")
	case strings.HasPrefix(name, "/assets/"):
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Set("ETag", f.etag)
	default:
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", f.etag)
	}
}

// send writes the smallest form that the browser takes.
func (f *file) send(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	body := f.body
	if len(f.encoded) > 0 {
		h.Set("Vary", "Accept-Encoding")
		for coding, encoded := range f.encoded {
			if len(encoded) < len(body) && accepts(r.Header.Get("Accept-Encoding"), coding) {
				h.Set("Content-Encoding", coding)
				body = encoded
			}
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the browser has gone
	}
}

// accepts reads an Accept-Encoding header; a weight of zero refuses.
func accepts(header, coding string) bool {
	for _, part := range strings.Split(header, ",") {
		name, parameters, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil || name != coding {
			continue
		}
		q, err := strconv.ParseFloat(parameters["q"], 64)
		return parameters["q"] == "" || (err == nil && q > 0)
	}
	return false
}

func plain(w http.ResponseWriter, status int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(line + "\n")) // the browser has gone
}
