package store

import "strings"

// AcceptedTerms is a version of a document that somebody has agreed to. Neither its name nor its version holds a space.
type AcceptedTerms struct {
	Policy  string
	Version string
}

// TermsText writes a list of documents as one text, which ParseTerms reads.
func TermsText(terms []AcceptedTerms) string {
	words := make([]string, 0, 2*len(terms))
	for _, t := range terms {
		words = append(words, t.Policy, t.Version)
	}
	return strings.Join(words, " ")
}

// ParseTerms reads what TermsText wrote.
func ParseTerms(text string) (terms []AcceptedTerms) {
	words := strings.Fields(text)
	for i := 0; i+1 < len(words); i += 2 {
		terms = append(terms, AcceptedTerms{words[i], words[i+1]})
	}
	return terms
}

// AcceptTerms notes what somebody has agreed to, and when (ms).
func (tx *Tx) AcceptTerms(user UserNID, terms []AcceptedTerms, when int64) error {
	for _, t := range terms {
		_, err := tx.Exec(`INSERT INTO accepted_terms (member, policy, version, accepted) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			user, t.Policy, t.Version, when)
		if err != nil {
			return err
		}
	}
	return nil
}

// TermsOf reads what somebody has agreed to, each with when (ms).
func (tx *Tx) TermsOf(user UserNID, each func(t AcceptedTerms, accepted int64)) error {
	return tx.Query(`SELECT policy, version, accepted FROM accepted_terms WHERE member = $1 ORDER BY policy, version`, func(r *Row) error {
		each(AcceptedTerms{r.Text(0), r.Text(1)}, r.Int64(2))
		return nil
	}, user)
}
