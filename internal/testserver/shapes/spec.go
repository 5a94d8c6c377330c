package shapes

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

//go:embed spec.json
var specText []byte

// The places in spec.json of the standard error response, and of those that tell a client to wait or to authenticate itself
// once more. Every operation may answer the first two, listed or not.
const (
	standardError = "/$defs/client-server.definitions.errors.error"
	rateLimited   = "/$defs/client-server.definitions.errors.rate_limited"
	interactive   = "/$defs/client-server.definitions.auth_response"
)

// operation is one of the specification, as spec.json has it.
type operation struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Answers map[string]answer `json:"answers"` // by status

	section  string // "client" or "server"
	id       string // operationId
	segments []string
	open     int // how many segments are parameters
}

// answer is what an operation answers with one status.
type answer struct {
	JSON    json.RawMessage `json:"json"`    // schema of the body; nil: it has none
	Types   []string        `json:"types"`   // media types of the body
	Headers []string        `json:"headers"` // that have to be there
}

// interactive tells whether the answer asks for user-interactive authentication.
func (a answer) interactive() bool {
	return bytes.Contains(a.JSON, []byte("definitions.auth_response"))
}

func (o *operation) name() string {
	if o == nil {
		return "no operation of the specification"
	}
	return o.id
}

// pointer is the place of the schema for a status.
func (o *operation) pointer(status int) string {
	return fmt.Sprintf("/%s/%s/answers/%d/json", o.section, o.id, status)
}

// document is spec.json, read once; operations are by method, those with the fewest parameters first.
type document struct {
	raw        any
	operations map[string][]*operation
}

var spec = sync.OnceValue(func() document {
	raw, err := jsonschema.UnmarshalJSON(bytes.NewReader(specText))
	if err != nil {
		panic(fmt.Errorf("spec.json: %w", err))
	}
	var sections struct{ Client, Server map[string]*operation }
	if err := json.Unmarshal(specText, &sections); err != nil {
		panic(fmt.Errorf("spec.json: %w", err))
	}
	d := document{raw, map[string][]*operation{}}
	for section, operations := range map[string]map[string]*operation{"client": sections.Client, "server": sections.Server} {
		for id, o := range operations {
			o.section, o.id, o.segments = section, id, segments(o.Path)
			o.open = strings.Count(o.Path, "{")
			d.operations[o.Method] = append(d.operations[o.Method], o)
		}
	}
	for _, list := range d.operations {
		// Two pairs of operations share a path, and have the same answers: which of them is named has to be certain.
		slices.SortFunc(list, func(a, b *operation) int { return cmp.Or(a.open-b.open, strings.Compare(a.id, b.id)) })
	}
	return d
})

func segments(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }

// older are prefixes of earlier releases that lead to the same operations.
var older = strings.NewReplacer("/_matrix/client/r0/", "/_matrix/client/v3/", "/_matrix/media/r0/", "/_matrix/media/v3/", "/_matrix/media/v1/", "/_matrix/media/v3/")

// stateOfType is the path of a state event with an empty state key, which may be left out, and its slash too.
var stateOfType = regexp.MustCompile(`^/_matrix/client/v3/rooms/[^/]+/state/[^/]+/?$`)

// find returns the operation that a request is for, nil if the specification has none.
func find(method, path string) *operation {
	now := older.Replace(path)
	if stateOfType.MatchString(now) {
		now = strings.TrimSuffix(now, "/") + "/any"
	}
	for _, candidate := range []string{path, now} {
		got := segments(candidate)
		for _, o := range spec().operations[method] {
			if o.matches(got) {
				return o
			}
		}
	}
	return nil
}

func (o *operation) matches(got []string) bool {
	if len(got) != len(o.segments) {
		return false
	}
	for i, want := range o.segments {
		if want != got[i] && (want[0] != '{' || got[i] == "") {
			return false
		}
	}
	return true
}

// compiled are the schemas that were used, by their place in spec.json: compiling all of them takes longer than most tests.
var (
	mu       sync.Mutex
	compiler *jsonschema.Compiler
	compiled = map[string]*jsonschema.Schema{}
)

const resource = "https://spec.matrix.org/spec.json" // a name; nothing is fetched

func schema(pointer string) *jsonschema.Schema {
	mu.Lock()
	defer mu.Unlock()
	if s := compiled[pointer]; s != nil {
		return s
	}
	if compiler == nil {
		compiler = newCompiler()
	}
	s, err := compiler.Compile(resource + "#" + pointer)
	if err != nil {
		panic(fmt.Errorf("spec.json at %s: %w", pointer, err))
	}
	compiled[pointer] = s
	return s
}

func newCompiler() *jsonschema.Compiler {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	for name, valid := range formats {
		c.RegisterFormat(&jsonschema.Format{Name: name, Validate: func(v any) error {
			if text, ok := v.(string); ok && !valid(text) {
				return errors.New("it has another form")
			}
			return nil
		}})
	}
	if err := c.AddResource(resource, spec().raw); err != nil {
		panic(fmt.Errorf("spec.json: %w", err))
	}
	return c
}

// maxID is the longest identifier, in bytes.
const maxID = 255

var eventID = regexp.MustCompile(`^\$[!-~]+$`)

// formats are those that the specification's documents name for identifiers. They are checked as loosely as the
// specification allows: identifiers of old rooms and users have letters that new ones may not have.
var formats = map[string]func(string) bool{
	"mx-user-id":     func(s string) bool { return sigil(s, '@') && strings.Contains(s, ":") },
	"mx-room-id":     func(s string) bool { return sigil(s, '!') },
	"mx-room-alias":  func(s string) bool { return sigil(s, '#') && strings.Contains(s, ":") },
	"mx-event-id":    func(s string) bool { return len(s) <= maxID && eventID.MatchString(s) },
	"mx-server-name": func(s string) bool { return s != "" && !strings.ContainsAny(s, "/ @") },
	"mx-mxc-uri": func(s string) bool {
		return strings.Count(strings.TrimPrefix(s, "mxc://"), "/") == 1 && strings.HasPrefix(s, "mxc://")
	},
}

func sigil(s string, first byte) bool { return len(s) > 1 && len(s) <= maxID && s[0] == first }

var english = message.NewPrinter(language.English)

// faultsOf are the innermost reasons of a failed validation.
func faultsOf(err error) []fault {
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return nil
	}
	var faults []fault
	var walk func(*jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		for _, cause := range e.Causes {
			walk(cause)
		}
		if len(e.Causes) == 0 {
			faults = append(faults, fault{pointerTo(e.InstanceLocation), e.ErrorKind.LocalizedString(english)})
		}
	}
	walk(invalid)
	return faults
}

// pointerTo writes a place as a JSON pointer.
func pointerTo(steps []string) string {
	var b strings.Builder
	for _, step := range steps {
		b.WriteByte('/')
		b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}
