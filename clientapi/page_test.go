package clientapi

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var gap = regexp.MustCompile(`%(?:\[\d\])?[a-z]`)

// TestPagesSayTheSameInEachLanguage: a text that one language lacks, or that has other gaps, would make its pages fail.
func TestPagesSayTheSameInEachLanguage(t *testing.T) {
	first := pageTexts[pageLanguages[0]]
	want := slices.Sorted(maps.Keys(first))
	for _, tag := range pageLanguages[1:] {
		if got := slices.Sorted(maps.Keys(pageTexts[tag])); !slices.Equal(got, want) {
			t.Errorf("%v has the texts %q, want %q", tag, got, want)
		}
		for key, text := range pageTexts[tag] {
			if got, want := gap.FindAllString(text, -1), gap.FindAllString(first[key], -1); !slices.Equal(got, want) {
				t.Errorf("%v: %s has the gaps %q, want %q", tag, key, got, want)
			}
			if strings.TrimSpace(text) == "" {
				t.Errorf("%v: %s is empty", tag, key)
			}
		}
	}
}

// TestPagesNameTheirTexts looks for the texts that templates and handlers name: each is there, and none is left over.
func TestPagesNameTheirTexts(t *testing.T) {
	texts, all := pageTexts[pageLanguages[0]], ""
	named := regexp.MustCompile(`\bt "([^"]+)"`)
	templates, err := fs.Glob(pageFiles, "pages/*.html")
	if err != nil || len(templates) < 5 {
		t.Fatalf("the templates are %q, %v", templates, err)
	}
	for _, file := range templates {
		text := string(pageFile(path.Base(file)))
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if _, ok := texts[m[1]]; !ok {
				t.Errorf("%s names the text %q, which is not there", file, m[1])
			}
		}
		all += text
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range sources {
		raw, err := os.ReadFile(file) //nolint:gosec // a file of this folder
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(file, "_test.go") {
			all += string(raw)
		}
	}
	for key := range texts {
		// The keys of these are put together of a kind and something else.
		kind, _, _ := strings.Cut(key, ".")
		if !strings.Contains(all, `"`+key+`"`) && !slices.Contains([]string{"stage", "stage_for", "refusal", "email"}, kind) {
			t.Errorf("nothing says %q", key)
		}
	}
}
