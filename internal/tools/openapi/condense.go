package main

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// condenser gathers the operations and the schemas that they refer to.
type condenser struct {
	files       map[string]object
	definitions object // schemas, by name
}

// condense returns the content of spec.json: "client" and "server" are the operations of the two APIs by operationId,
// "$defs" the schemas that several of them share.
func condense(files map[string]object) (object, error) {
	c := &condenser{files: files, definitions: object{}}
	spec := object{"$defs": c.definitions, "$comment": "Condensed by internal/tools/openapi from the OpenAPI documents of the Matrix specification " + release +
		" (github.com/matrix-org/matrix-spec), Copyright The Matrix.org Foundation C.I.C. and others, Apache License 2.0; see LICENSE-matrix-spec."}
	for section, dir := range map[string]string{"client": "api/client-server", "server": "api/server-server"} {
		operations := object{}
		for _, file := range slices.Sorted(maps.Keys(files)) {
			if path.Dir(file) != dir || files[file]["paths"] == nil {
				continue
			}
			if err := c.file(file, operations); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
		spec[section] = operations
	}
	return spec, nil
}

// file adds the operations of one document.
func (c *condenser) file(file string, operations object) error {
	base, err := basePath(c.files[file])
	if err != nil {
		return err
	}
	paths, _ := c.files[file]["paths"].(object)
	for suffix, methods := range paths {
		item, _ := methods.(object)
		for method, value := range item {
			operation, ok := value.(object)
			id, named := operation["operationId"].(string)
			if !ok || !named {
				return fmt.Errorf("%s %s has no operationId", method, suffix)
			}
			answers, err := c.answers(file, operation)
			if err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			if operations[id] != nil {
				return fmt.Errorf("there are two operations %s", id)
			}
			operations[id] = object{"method": strings.ToUpper(method), "path": base + strings.TrimSpace(suffix), "answers": answers}
		}
	}
	return nil
}

// basePath is what the paths of a document are below.
func basePath(document object) (string, error) {
	servers, _ := document["servers"].([]any)
	if len(servers) == 0 {
		return "", errors.New("it names no server")
	}
	base, err := at(servers[0], "/variables/basePath/default")
	if err != nil {
		return "", err
	}
	text, _ := base.(string)
	return strings.TrimSuffix(text, "/"), nil
}

// answers are an operation's answers by status: "json" is the schema of the body, "types" its media types, "headers" the
// names of those that have to be there.
func (c *condenser) answers(file string, operation object) (object, error) {
	out := object{}
	responses, _ := operation["responses"].(object)
	for status, value := range responses {
		response, where, err := c.resolve(file, value)
		if err != nil {
			return nil, err
		}
		answer := object{}
		if err := c.content(where, response, answer); err != nil {
			return nil, fmt.Errorf("%s: %w", status, err)
		}
		headers, _ := response["headers"].(object)
		var required []string
		for name, value := range headers {
			header, _, err := c.resolve(where, value)
			if err != nil {
				return nil, err
			}
			if header["required"] == true {
				required = append(required, name)
			}
		}
		if slices.Sort(required); len(required) > 0 {
			answer["headers"] = required
		}
		out[status] = answer
	}
	return out, nil
}

func (c *condenser) content(file string, response, answer object) error {
	content, _ := response["content"].(object)
	if len(content) == 0 {
		return nil
	}
	answer["types"] = slices.Sorted(maps.Keys(content))
	body, _ := content["application/json"].(object)
	if body["schema"] == nil {
		return nil
	}
	schema, err := c.schema(file, body["schema"])
	answer["json"] = schema
	return err
}

// resolve follows a reference to something that is not a schema.
func (c *condenser) resolve(file string, value any) (object, string, error) {
	o, _ := value.(object)
	ref, ok := o["$ref"].(string)
	if !ok {
		return o, file, nil
	}
	other, pointer := reference(file, ref)
	found, err := at(c.files[other], pointer)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", ref, err)
	}
	o, _ = found.(object)
	return o, other, nil
}

// The keywords of schemas: those that hold a schema, a list of schemas, or schemas by name; those that are kept as they
// are; and those that are for readers. One that is in none of them is an error: it might be a rule.
var (
	holdsOne   = []string{"items", "additionalProperties"}
	holdsList  = []string{"allOf", "oneOf", "anyOf"}
	holdsNamed = []string{"properties", "patternProperties"}
	kept       = []string{"type", "required", "enum", "const", "pattern", "format", "minItems", "maxItems", "minProperties", "maxProperties", "minimum", "maximum"}
	readers    = []string{"title", "description", "example", "examples", "default", "deprecated", "$schema"}
)

// schema condenses one schema of a file.
func (c *condenser) schema(file string, value any) (any, error) {
	in, ok := value.(object)
	if !ok {
		return value, nil // true or false
	}
	out := object{}
	for keyword, value := range in {
		var err error
		switch {
		case keyword == "$ref":
			ref, _ := value.(string)
			out[keyword], err = c.define(file, ref)
		case slices.Contains(holdsOne, keyword):
			out[keyword], err = c.schema(file, value)
		case slices.Contains(holdsList, keyword):
			out[keyword], err = c.list(file, value)
		case slices.Contains(holdsNamed, keyword):
			out[keyword], err = c.named(file, value)
		case keyword == "pattern":
			out[keyword] = value
			_, err = regexp.Compile(fmt.Sprint(value))
		case slices.Contains(kept, keyword):
			out[keyword] = value
		case slices.Contains(readers, keyword), strings.HasPrefix(keyword, "x-"):
		default:
			err = fmt.Errorf("the keyword %q is not known here", keyword)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (c *condenser) list(file string, value any) ([]any, error) {
	var out []any
	in, _ := value.([]any)
	for _, one := range in {
		schema, err := c.schema(file, one)
		if err != nil {
			return nil, err
		}
		out = append(out, schema)
	}
	return out, nil
}

func (c *condenser) named(file string, value any) (object, error) {
	out := object{}
	in, _ := value.(object)
	for name, one := range in {
		schema, err := c.schema(file, one)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = schema
	}
	return out, nil
}

// define adds the schema that a reference leads to, once, and returns the reference to it in spec.json.
func (c *condenser) define(file, ref string) (string, error) {
	other, pointer := reference(file, ref)
	name := strings.TrimSuffix(strings.TrimPrefix(other, "api/"), ".yaml") + strings.TrimPrefix(pointer, "/components/schemas")
	name = strings.ReplaceAll(name, "/", ".")
	if _, known := c.definitions[name]; !known {
		c.definitions[name] = nil // a schema may lead back to itself
		found, err := at(c.files[other], pointer)
		if err != nil || c.files[other] == nil {
			return "", fmt.Errorf("%s leads nowhere", ref)
		}
		if c.definitions[name], err = c.schema(other, found); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	return "#/$defs/" + name, nil
}
