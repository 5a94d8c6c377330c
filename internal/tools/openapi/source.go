package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"

	"gopkg.in/yaml.v3"
)

// object is a JSON or YAML mapping.
type object = map[string]any

// readRelease reads the documents of the release that every reference can lead to, by path below data.
func readRelease(clone string) (map[string]object, error) {
	if clone == "" {
		return nil, errors.New("-spec has to name a clone of the specification's repository")
	}
	//nolint:gosec // a tool for whoever has the clone
	archive, err := exec.Command("git", "-C", clone, "archive", release, "data/api", "data/event-schemas/schema").Output()
	if err != nil {
		return nil, fmt.Errorf("reading %s of the clone %s: %w", release, clone, err)
	}
	files := map[string]object{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg || path.Ext(h.Name) != ".yaml" {
			continue
		}
		var document any
		if err := yaml.NewDecoder(r).Decode(&document); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		if o, ok := plain(document).(object); ok {
			files[strings.TrimPrefix(h.Name, "data/")] = o
		}
	}
}

// plain turns every mapping into one with text for keys: a status that stands without quotes is a number in YAML.
func plain(v any) any {
	switch v := v.(type) {
	case object:
		for key, value := range v {
			v[key] = plain(value)
		}
	case map[any]any:
		out := object{}
		for key, value := range v {
			out[fmt.Sprint(key)] = plain(value)
		}
		return out
	case []any:
		for i, value := range v {
			v[i] = plain(value)
		}
	}
	return v
}

// reference finds what a $ref in a file leads to: the file, and the place in it.
func reference(from, ref string) (file, pointer string) {
	name, pointer, _ := strings.Cut(strings.TrimSpace(ref), "#")
	if name == "" {
		return from, pointer
	}
	return path.Join(path.Dir(from), name), pointer
}

// at walks to a place in a document.
func at(document any, pointer string) (any, error) {
	for _, step := range strings.Split(pointer, "/")[1:] {
		o, ok := document.(object)
		if document = o[step]; !ok || document == nil {
			return nil, fmt.Errorf("there is no %s", pointer)
		}
	}
	return document, nil
}
