package clientapi

import (
	"maps"
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

// TestPagesNameTheirTexts looks for the texts that templates name.
func TestPagesNameTheirTexts(t *testing.T) {
	texts := pageTexts[pageLanguages[0]]
	templates, err := pageFiles.ReadDir("pages")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\bt "([^"]+)"`)
	found := 0
	for _, file := range templates {
		if !strings.HasSuffix(file.Name(), ".html") {
			continue
		}
		for _, m := range named.FindAllStringSubmatch(string(pageFile(file.Name())), -1) {
			found++
			if _, ok := texts[m[1]]; !ok {
				t.Errorf("%s names the text %q, which is not there", file.Name(), m[1])
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d texts are named: the test has gone blind", found)
	}
}
