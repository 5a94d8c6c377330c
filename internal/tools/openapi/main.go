// Command openapi condenses the OpenAPI documents of the Matrix specification into internal/testserver/shapes/spec.json:
// for every operation of the client-server and server-server APIs what its answers look like, by status. Prose and
// examples stay behind. Run it by `make shapes SPEC=FOLDER` with a clone of the specification; nothing else needs one.
//
// The specification's documents have slips; corrections.go holds what is put right here, with the reason. A correction
// that no longer finds what it corrects is an error, so none outlives its slip.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
)

// release is the tag of the specification that the lists in docs/spec are drawn from.
const release = "v1.19"

func main() {
	clone := flag.String("spec", "", "a clone of the specification's repository")
	out := flag.String("out", "internal/testserver/shapes/spec.json", "the file to write")
	flag.Parse()
	if err := run(*clone, *out); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(clone, out string) error {
	files, err := readRelease(clone)
	if err != nil {
		return err
	}
	spec, err := condense(files)
	if err != nil {
		return err
	}
	for _, c := range corrections {
		if err := c.apply(spec); err != nil {
			return err
		}
	}
	text, err := write(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o644) //nolint:gosec // a file of the repository
}

// write puts each operation and each definition on a line of its own, sorted, so that a change of the specification shows.
func write(spec object) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("{\n")
	for i, section := range slices.Sorted(maps.Keys(spec)) {
		if i > 0 {
			b.WriteString(",\n")
		}
		entries, ok := spec[section].(object)
		if !ok {
			line, err := json.Marshal(spec[section])
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "%q:%s", section, line)
			continue
		}
		fmt.Fprintf(&b, "%q:{\n", section)
		for j, name := range slices.Sorted(maps.Keys(entries)) {
			if j > 0 {
				b.WriteString(",\n")
			}
			line, err := json.Marshal(entries[name])
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "%q:%s", name, line)
		}
		b.WriteString("\n}")
	}
	b.WriteString("\n}\n")
	return b.Bytes(), nil
}
