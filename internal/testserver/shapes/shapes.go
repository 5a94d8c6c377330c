// Package shapes compares what servers under test answer with the OpenAPI documents of the Matrix specification: the
// clients of package testserver and the lying homeserver hand it every answer they get. An answer with another shape than
// its operation has fails the test, whatever the test is about. Each comparison with success goes into the record of the
// tests (package proof), so that docs/spec/coverage.md can say which operations were compared.
//
// spec.json is made by internal/tools/openapi, which also puts right where the documents contradict the specification's
// text. deviations.go lists where we answer otherwise on purpose.
package shapes

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"conclave/internal/testserver/proof"
)

// maxBody bounds the bodies that are compared: a few answers of a test are rooms of ten thousand people, and comparing
// one of those tells nothing that a smaller one does not.
const maxBody = 256 << 10

// Check fails the test if an answer of a server under test has not the shape that the specification gives it. uri is what
// was requested: the path, escaped, with its query if there is one.
func Check(t testing.TB, method, uri string, status int, header http.Header, body []byte) {
	t.Helper()
	path, query, _ := strings.Cut(uri, "?")
	if method == http.MethodHead || method == http.MethodOptions || len(body) > maxBody || !strings.HasPrefix(path, "/_matrix/") && !strings.HasPrefix(path, "/.well-known/matrix/") {
		return
	}
	op := find(method, path)
	if op != nil && op.id == "sync" && otherEvents(query) {
		return
	}
	faults := compare(op, status, header, body)
	if op != nil {
		faults = slices.DeleteFunc(faults, func(f fault) bool { return meant(t, op.id, status, f) })
	}
	for _, f := range faults {
		t.Errorf("%s %s (%s) answered %d in another shape than the specification has: %s\n%s", method, path, op.name(), status, f, shorten(body))
	}
	if op != nil && len(faults) == 0 && status < http.StatusBadRequest {
		what := op.Path // not each room's
		if len(segments(path)) != len(op.segments) {
			what = path // a state event without a key, which the lists in docs/spec have by itself
		}
		proof.Shaped(t, op.Method, what)
	}
}

// otherEvents tells whether a query of /sync asks for events in another form than the document has: with some of their
// fields only, or as servers exchange them.
func otherEvents(query string) bool {
	values, err := url.ParseQuery(query)
	filter := values.Get("filter")
	return err == nil && (strings.Contains(filter, `"event_fields"`) || strings.Contains(filter, `"event_format"`))
}

// Do makes a request to a server under test as client.Do does, and compares the answer.
func Do(t testing.TB, client *http.Client, req *http.Request) (*http.Response, error) {
	t.Helper()
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err == nil && kind != "application/json" {
		Check(t, req.Method, req.URL.RequestURI(), res.StatusCode, res.Header, nil) // the body is content, which has no shape
		return res, nil
	}
	start, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err == nil {
		Check(t, req.Method, req.URL.RequestURI(), res.StatusCode, res.Header, start)
	}
	res.Body = rest{io.MultiReader(bytes.NewReader(start), failing{err}, res.Body), res.Body}
	return res, nil
}

// rest is a body whose beginning was read already.
type rest struct {
	io.Reader
	io.Closer
}

// failing gives back the error that ended an earlier reading, or the end of what it stands for.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// fault is one thing that is wrong with an answer.
type fault struct {
	at   string // JSON pointer into the body, or "header NAME"
	text string
}

func (f fault) String() string {
	if f.at == "" {
		return f.text
	}
	return "at " + f.at + ": " + f.text
}

// content tells whether an operation answers with content, of which a client may ask for a range, or only if it has
// changed: those answers are HTTP's own (RFC 9110), and the specification does not list them.
func (o *operation) content() bool {
	a := o.Answers["200"]
	return a.JSON == nil && len(a.Types) > 0
}

// compare finds what is wrong with an answer. op is nil where the specification has no such operation: then only errors
// have a shape.
func compare(op *operation, status int, header http.Header, body []byte) []fault {
	if status >= http.StatusBadRequest {
		return compareError(op, status, header, body)
	}
	if op == nil {
		return nil
	}
	a, listed := op.Answers[fmt.Sprint(status)]
	if !listed && op.content() && (status == http.StatusPartialContent || status == http.StatusNotModified) {
		return nil
	}
	if !listed {
		return []fault{{text: "the specification lists no such answer"}}
	}
	faults := a.compareHeaders(header)
	if a.JSON == nil {
		return faults
	}
	return append(faults, validate(op.pointer(status), header, body)...)
}

// compareError looks at an answer of a status from 400 on: it is a standard error response, and, where the operation has
// a schema for the status, also has that. A 401 of user-interactive authentication need not have an errcode while no
// stage has failed, and an operation that asks for it can answer 401 for want of a token all the same.
func compareError(op *operation, status int, header http.Header, body []byte) []fault {
	if op == nil && strings.HasPrefix(header.Get("Content-Type"), "text/html") {
		return nil // a page of our own, for people; clientapi's TestNoAnswerBecomesAPage holds them to what pages may be
	}
	if op == nil && status == http.StatusUnauthorized && bytes.Contains(body, []byte(`"flows"`)) {
		return validate(interactive, header, body) // one of our own
	}
	if op != nil {
		if a := op.Answers[fmt.Sprint(status)]; a.JSON != nil {
			faults := validate(op.pointer(status), header, body)
			switch {
			case !a.interactive():
				return append(faults, validate(standardError, header, body)...)
			case len(faults) == 0:
				return nil
			case bytes.Contains(body, []byte(`"flows"`)):
				return faults
			}
		}
	}
	if status == http.StatusRequestedRangeNotSatisfiable && op != nil && op.content() {
		return nil
	}
	if status == http.StatusTooManyRequests {
		return validate(rateLimited, header, body)
	}
	return validate(standardError, header, body)
}

// compareHeaders looks for the headers that have to be there, and at the type of the content.
func (a answer) compareHeaders(header http.Header) []fault {
	var faults []fault
	for _, name := range a.Headers {
		if header.Get(name) == "" {
			faults = append(faults, fault{"header " + name, "it has to be there"})
		}
	}
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if len(a.Types) > 0 && !slices.Contains(a.Types, "application/octet-stream") && (err != nil || !slices.Contains(a.Types, kind)) {
		faults = append(faults, fault{"header Content-Type", fmt.Sprintf("got %q, want one of %v", header.Get("Content-Type"), a.Types)})
	}
	return faults
}

// validate compares a body with the schema at a place of spec.json.
func validate(pointer string, header http.Header, body []byte) []fault {
	if kind, _, err := mime.ParseMediaType(header.Get("Content-Type")); err != nil || kind != "application/json" {
		return []fault{{"header Content-Type", fmt.Sprintf("got %q, want application/json", header.Get("Content-Type"))}}
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return []fault{{text: "the body is no JSON: " + err.Error()}}
	}
	return faultsOf(schema(pointer).Validate(value))
}

// shorten is as much of a body as a failure shows.
func shorten(body []byte) string {
	const most = 2000
	if len(body) > most {
		return string(body[:most]) + "…"
	}
	return string(body)
}
