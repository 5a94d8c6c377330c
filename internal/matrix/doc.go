// Package matrix is the Matrix specification as data and pure functions: identifiers, strict and canonical JSON, room
// versions, events with their hashes, signatures and redaction, and the contents that a server has to understand.
//
// Nothing in it does I/O, reads a clock or keeps state, so everything in it can be tested by vectors and fuzzed. What
// differs between room versions is asked of RoomVersion's predicates (version.go); no other file of the project
// compares versions.
package matrix
