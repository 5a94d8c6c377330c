// Package ports finds ports of loopback for what is started by number: servers that run as processes of their own.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Free finds ports of loopback that nobody listens on. They are below those that the system gives to outgoing
// connections and to listeners on port 0: one of those could take a port between now and the start of the server. Other
// tests that look for ports find them taken, until the end of this one: the UDP port of the same number, which nothing
// in a test uses, is held meanwhile, also while the server is down.
func Free(t testing.TB, n int) []int {
	t.Helper()
	const lowest, highest = 15_000, 32_000
	var found []int
	for range 1000 {
		port := lowest + rand.IntN(highest-lowest)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		held, err := net.ListenPacket("udp", address)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			_ = held.Close() // nothing was done with it
			continue
		}
		_ = l.Close() // it has done its work
		t.Cleanup(func() { _ = held.Close() })
		if found = append(found, port); len(found) == n {
			return found
		}
	}
	t.Fatal("there are no free ports")
	return nil
}
