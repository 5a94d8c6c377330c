package shapes

import (
	"path"
	"testing"

	"conclave/internal/testserver/proof"
)

// A Deviation is where we answer otherwise than the specification's documents have it, on purpose.
type Deviation struct {
	Operation string // operationId
	Status    int
	At        string // JSON pointer into the body, in which * stands for any one step
	Reason    string
}

const anyAlgorithm = "the server stores backups of any algorithm, for it reads none of them; which one is the clients' choice"

// Deviations are all of them. One that no test needs any more makes the check of coverage fail (internal/tools/coverage).
var Deviations = []Deviation{
	{"getRoomKeysVersion", 200, "/algorithm", anyAlgorithm},
	{"getRoomKeysVersionCurrent", 200, "/algorithm", anyAlgorithm},
}

// meant tells whether a fault is a deviation, and records that it was needed.
func meant(t testing.TB, operation string, status int, f fault) bool {
	for _, d := range Deviations {
		if d.Operation != operation || d.Status != status {
			continue
		}
		if ok, err := path.Match(d.At, f.at); err == nil && ok {
			proof.Deviated(t, d.Operation, d.At)
			return true
		}
	}
	return false
}
