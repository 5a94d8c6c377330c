package clientapi

import (
	"maps"
	"slices"
	"testing"
)

// TestPagesSayTheSameInEachLanguage: a text that one language lacks would make its pages fail.
func TestPagesSayTheSameInEachLanguage(t *testing.T) {
	want := slices.Sorted(maps.Keys(pageTexts[pageLanguages[0]]))
	for _, tag := range pageLanguages[1:] {
		if got := slices.Sorted(maps.Keys(pageTexts[tag])); !slices.Equal(got, want) {
			t.Errorf("%v has the texts %q, want %q", tag, got, want)
		}
	}
}
