package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const servers = `
servers:
  - url: "{basePath}"
    variables: {basePath: {default: /_matrix/client/v3}}
`

// sample is a specification of two documents and what they refer to.
var sample = map[string]string{
	"api/client-server/things.yaml": `
paths:
  "/things/{thingId} ":
    get:
      operationId: getThing
      parameters: [{in: path, name: thingId}]
      responses:
        200:
          description: The thing.
          headers:
            X-Thing: {$ref: '#/components/headers/needed'}
            X-Other: {required: false}
          content:
            application/json:
              schema:
                type: object
                description: prose
                required: [title]
                properties:
                  title: {type: string, title: prose, example: a}
                  parts: {type: array, items: {$ref: definitions/part.yaml}}
              examples: {response: {value: 1}}
        "302": {$ref: '#/components/responses/elsewhere'}
components:
  headers: {needed: {required: true}}
  responses: {elsewhere: {description: moved}}
` + servers,
	"api/client-server/definitions/part.yaml": "type: object\nx-added: 1\nadditionalProperties: {$ref: part.yaml}\n",
	"api/server-server/none.yaml":             "title: it has no operations\n",
}

// clone makes a repository that has a release with these files.
func clone(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, "data", filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"init", "-q"}, {"add", "."}, {"-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-q", "-m", "release"}, {"tag", release},
	} {
		if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

func condensed(t *testing.T, files map[string]string) (string, error) {
	t.Helper()
	files["event-schemas/schema/any.yaml"] = "type: object\n"
	read, err := readRelease(clone(t, files))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := condense(read)
	if err != nil {
		return "", err
	}
	text, err := write(spec)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), nil
}

func TestCondense(t *testing.T) {
	text, err := condensed(t, sample)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"client-server.definitions.part":{"additionalProperties":{"$ref":"#/$defs/client-server.definitions.part"},"type":"object"}` + "\n",
		`"getThing":{"answers":{"200":{"headers":["X-Thing"],"json":{"properties":{"parts":{"items":{"$ref":"#/$defs/client-server.definitions.part"},"type":"array"},` +
			`"title":{"type":"string"}},"required":["title"],"type":"object"},"types":["application/json"]},"302":{}},"method":"GET","path":"/_matrix/client/v3/things/{thingId}"}` + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no\n%s\nin\n%s", want, text)
		}
	}
}

// TestCondenseRefuses: what this program would lose without a word is an error.
func TestCondenseRefuses(t *testing.T) {
	for _, c := range []struct{ document, want string }{
		{"paths: {/a: {get: {responses: {}}}}\n" + servers, "has no operationId"},
		{"paths: {/a: {get: {operationId: a, responses: {}}}}\n", "it names no server"},
		{"paths: {/a: {get: {operationId: a, responses: {}}, put: {operationId: a, responses: {}}}}\n" + servers, "two operations a"},
		{"paths: {/a: {get: {operationId: a, responses: {200: {$ref: '#/components/none'}}}}}\n" + servers, "there is no /components/none"},
		{"paths: {/a: {get: {operationId: a, responses: {200: {content: {application/json: {schema: {$ref: none.yaml}}}}}}}}\n" + servers, "leads nowhere"},
		{"paths: {/a: {get: {operationId: a, responses: {200: {content: {application/json: {schema: {items: {nullable: true}}}}}}}}}\n" + servers, `the keyword "nullable" is not known here`},
	} {
		if text, err := condensed(t, map[string]string{"api/client-server/a.yaml": c.document}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s is condensed to %s, %v; want %s", c.document, text, err, c.want)
		}
	}
}

func TestCorrections(t *testing.T) {
	for _, c := range []struct{ at, was, is, want, fails string }{
		{at: "/a/b", was: `["x"]`, is: `["x","y"]`, want: `["x","y"]`},
		{at: "/a/b", was: `["x"]`, want: ""},
		{at: "/a/c", is: `1`, want: `1`},
		{at: "/a/b", is: `1`, fails: "the specification has changed"},
		{at: "/a/c", was: `1`, is: `2`, fails: "the specification has changed"},
		{at: "/z/c", was: `1`, is: `2`, fails: "there is no /z"},
	} {
		spec := object{"a": object{"b": []any{"x"}}}
		err := correction{at: c.at, was: c.was, is: c.is}.apply(spec)
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		text, err := write(object{"section": object{"entry": spec["a"]}})
		if err != nil {
			t.Fatal(err)
		}
		if _, name, _ := strings.Cut(c.at, "/a/"); c.want != "" && !bytes.Contains(text, []byte(`"`+name+`":`+c.want)) {
			t.Errorf("%+v makes %s", c, text)
		}
	}
	for _, c := range corrections {
		if c.reason == "" {
			t.Errorf("the correction at %s has no reason", c.at)
		}
	}
}
