package pushrules

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// fold maps a letter to the one that stands for all its cases: ſ and S to s, ς and Σ to σ.
func fold(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	return unicode.ToLower(unicode.ToUpper(r))
}

// foldText folds every letter; invalid UTF-8 becomes U+FFFD, which the strict JSON reader never lets come here.
func foldText(s string) string { return strings.Map(fold, s) }

// glob is a compiled pattern (appendices, "Glob-style matching"): * is any run of characters, ? any one; case is ignored.
//
// Without wildcards it is a plain search. With them the pattern is a row of states held in the bits of words, all of which take a step for
// each character of the text, so the time is that of reading the text once for every 64 characters of the pattern, whatever both are.
type glob struct {
	literal string // folded; the whole pattern if plain, else its longest part without wildcards
	plain   bool
	states  int
	star    []uint64          // states that stay where they are
	any     []uint64          // states that a character not in the pattern takes forward: those of ?
	ascii   [128][]uint64     // states that this character takes forward; nil: any
	other   map[rune][]uint64 // the same beyond ASCII
}

// compileGlob reads a pattern of at most MaxPattern bytes.
func compileGlob(pattern string) *glob {
	folded := foldText(pattern)
	if !strings.ContainsAny(folded, "*?") {
		return &glob{literal: folded, plain: true}
	}
	for strings.Contains(folded, "**") {
		folded = strings.ReplaceAll(folded, "**", "*")
	}
	g := &glob{other: map[rune][]uint64{}}
	for part := range strings.FieldsFuncSeq(folded, func(r rune) bool { return r == '*' || r == '?' }) {
		if len(part) > len(g.literal) {
			g.literal = part
		}
	}
	letters := []rune(folded)
	g.states = len(letters)
	words := g.states/64 + 1
	g.star, g.any = make([]uint64, words), make([]uint64, words)
	for i, r := range letters {
		switch r {
		case '*':
			g.star[i/64] |= 1 << (i % 64)
		case '?':
			g.any[i/64] |= 1 << (i % 64)
		}
	}
	for i, r := range letters {
		if r == '*' || r == '?' {
			continue
		}
		steps := g.lookup(r)
		if steps == nil {
			steps = append([]uint64(nil), g.any...)
			if r < 128 {
				g.ascii[r] = steps
			} else {
				g.other[r] = steps
			}
		}
		steps[i/64] |= 1 << (i % 64)
	}
	return g
}

// lookup returns the states that a character of the pattern takes forward, nil for any other character.
func (g *glob) lookup(r rune) []uint64 {
	if r < 128 {
		return g.ascii[r]
	}
	return g.other[r]
}

// run is the set of states that a match is in.
type run struct {
	g     *glob
	state []uint64
}

func (g *glob) run() run { return run{g, make([]uint64, len(g.star))} }

// enter lets a match begin here.
func (r run) enter() {
	r.state[0] |= 1
	if r.g.star[0]&1 != 0 { // a leading star may be nothing
		r.state[0] |= 2
	}
}

// done reports whether a match may end here.
func (r run) done() bool { return r.state[r.g.states/64]>>(r.g.states%64)&1 != 0 }

// step takes a character.
func (r run) step(c rune) {
	steps := r.g.lookup(c)
	if steps == nil {
		steps = r.g.any
	}
	var carry, starCarry uint64
	for w, now := range r.state {
		moved := now & steps[w]
		next := moved<<1 | carry | now&r.g.star[w]
		carry = moved >> 63
		waiting := next & r.g.star[w] // a star may be nothing: the state behind it is reached as well
		r.state[w] = next | waiting<<1 | starCarry
		starCarry = waiting >> 63
	}
}

// matchAll reports whether the pattern matches a whole text, which is folded.
func (g *glob) matchAll(folded string) bool {
	if g.plain {
		return folded == g.literal
	}
	if !strings.Contains(folded, g.literal) {
		return false
	}
	r := g.run()
	r.enter()
	for _, c := range folded {
		r.step(c)
	}
	return r.done()
}

// matchWords reports whether the pattern matches a part of a folded text that begins and ends at a word boundary.
func (g *glob) matchWords(folded string) bool {
	if g.plain {
		return containsWord(folded, g.literal)
	}
	if !strings.Contains(folded, g.literal) {
		return false
	}
	r := g.run()
	boundary := true
	for _, c := range folded {
		if boundary {
			r.enter()
		}
		word := isWord(c)
		if !word && r.done() {
			return true
		}
		r.step(c)
		boundary = !word
	}
	if boundary {
		r.enter()
	}
	return r.done()
}

// containsWord reports whether a folded text holds a folded word between two word boundaries.
func containsWord(text, word string) bool {
	if word == "" {
		return false
	}
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return false
		}
		start, end := from+i, from+i+len(word)
		if (start == 0 || !isWord(rune(text[start-1]))) && (end == len(text) || !isWord(rune(text[end]))) {
			return true
		}
		for from = start + 1; from < len(text) && isWord(rune(text[from-1])); from++ { // to where the next match can begin
		}
	}
}

// isWord reports whether a character is part of a word: [A-Za-z0-9_], nothing else. A byte of a longer character is not.
func isWord(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_'
}
