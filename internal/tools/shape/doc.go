// Package shape holds tests of the shape of the code: that only the table of room versions compares them, that functions stay short
// enough to read at once, and that every package begins with a comment. Which package may import which is tested beside it, in imports.
package shape
