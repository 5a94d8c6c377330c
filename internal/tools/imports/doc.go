// Package imports holds the test that keeps the direction of imports: which package of Conclave may
// stand on which (docs/architecture.md). It has no code of its own; the table is in rules_test.go.
package imports
