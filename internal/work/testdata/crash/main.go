// Command crash reaches a failpoint as often as it is told and says so each time.
package main

import (
	"fmt"

	"conclave/internal/work"
)

func main() {
	for i := range 5 {
		work.Failpoint("another.place")
		work.Failpoint("crash.here")
		fmt.Print(i)
	}
}
