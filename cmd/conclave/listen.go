package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// listen opens a TCP listener for a key of the configuration ("listen.client"). Its error is the line that
// the operator reads: what is wrong and what to do.
func listen(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	variable := "CONCLAVE_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
	other := fmt.Sprintf("give %s (or %s) another address", key, variable)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("cannot listen on %s: another program uses this port; stop it, or %s", address, other)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("cannot listen on %s: this user may not open the port; %s above 1024, or grant CAP_NET_BIND_SERVICE", address, other)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("cannot listen on %s: this machine does not have the address; %s", address, other)
	default:
		return nil, fmt.Errorf("cannot listen on %s: %w; check %s", address, err, key)
	}
}
