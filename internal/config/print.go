package config

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
)

const printWidth = 120

const printHead = `# Conclave configuration. Every key with its meaning and its default.
# Each is also an environment variable: CONCLAVE_ and the path in upper case with underscores, e.g. CONCLAVE_DATABASE_URL
# (lists separated by commas). Secrets may stand in a file of their own: database.url_file, CONCLAVE_DATABASE_URL_FILE.
`

// Print writes the commented example configuration: every key, with example values where a default is empty.
func Print(w io.Writer) error { return write(w, defaults(), true) }

// write prints a configuration; examples says whether a tag's example stands in for an empty value.
func write(w io.Writer, c *Config, examples bool) error {
	out := bufio.NewWriter(w)
	out.WriteString(printHead)
	printSection(out, reflect.ValueOf(c).Elem(), "", examples)
	return out.Flush()
}

func printSection(out *bufio.Writer, section reflect.Value, path string, examples bool) {
	indent := strings.Repeat("  ", strings.Count(path, ".")+1)
	if path == "" {
		indent = ""
	}
	for _, f := range children(section, path) {
		if path == "" {
			out.WriteByte('\n')
		}
		for _, line := range wrap(f.doc(), printWidth-len(indent)-2) {
			fmt.Fprintf(out, "%s# %s\n", indent, line)
		}
		if f.isSection() {
			fmt.Fprintf(out, "%s%s:\n", indent, f.name())
			printSection(out, f.value, f.path, examples)
			continue
		}
		fmt.Fprintf(out, "%s%s: %s\n", indent, f.name(), f.yaml(examples))
	}
}

// doc is a key's meaning, with a word about what this version does not have.
func (f field) doc() string {
	text, enum, built := f.tag.Get("doc"), strings.Fields(f.tag.Get("enum")), strings.Fields(f.tag.Get("built"))
	switch {
	case len(built) == 0:
		return text
	case len(enum) == 0:
		return text + " Not available in this version."
	}
	return fmt.Sprintf("%s Available in this version: %s.", text, strings.Join(built, ", "))
}

// yaml is the value as it is written in a file.
func (f field) yaml(examples bool) string {
	switch v := f.value.Interface().(type) {
	case []string:
		quoted := make([]string, len(v))
		for i, item := range v {
			quoted[i] = strconv.Quote(item)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case []netip.Prefix:
		texts := make([]string, len(v))
		for i, item := range v {
			texts[i] = strconv.Quote(item.String())
		}
		return "[" + strings.Join(texts, ", ") + "]"
	}
	text := f.text()
	if text == "" && examples {
		text = f.tag.Get("example")
	}
	if f.value.Kind() == reflect.String && needsQuotes(text) {
		return strconv.Quote(text)
	}
	return text
}

// needsQuotes errs on the side of quoting: a plain word, path or address stays as it is.
func needsQuotes(text string) bool {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./:_-"
	if text == "" || strings.Trim(text, plain) != "" || strings.ContainsAny(text[:1], "0123456789.-:") && !strings.HasPrefix(text, "./") {
		return true
	}
	switch strings.ToLower(text) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		return true
	}
	return strings.HasSuffix(text, ":")
}

// wrap breaks a sentence into lines.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
