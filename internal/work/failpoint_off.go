//go:build !failpoints

package work

// Failpoint marks a place at which a build with the tag "failpoints" can be told to die, by CONCLAVE_FAILPOINT. In any other build it is nothing.
func Failpoint(string) {}
