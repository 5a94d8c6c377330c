// Command coverage prints how many operations of the Matrix specification this tree serves, and which are
// missing: docs/spec/endpoints.tsv against the route tables of the two API packages. Nobody claims coverage;
// it is counted. Run it in the root of the repository (make coverage).
package main

import (
	"fmt"
	"os"

	"conclave/clientapi"
	"conclave/federation"
)

const listPath = "docs/spec/endpoints.tsv"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}

func run() error {
	file, err := os.Open(listPath)
	if err != nil {
		return fmt.Errorf("reading the list of operations: %w", err)
	}
	defer file.Close()
	rows, err := readList(file)
	if err != nil {
		return err
	}
	compare(rows, "ss", serverOperations()).print(os.Stdout, "server-server")
	compare(rows, "cs", clientOperations()).print(os.Stdout, "client-server")
	return nil
}

func clientOperations() []operation {
	var served []operation
	for _, r := range clientapi.Routes() {
		for _, path := range append([]string{r.Path}, r.Aliases...) {
			served = append(served, newOperation(r.Method, path))
		}
	}
	return served
}

func serverOperations() []operation {
	var served []operation
	for _, r := range federation.Routes() {
		served = append(served, newOperation(r.Method, r.Path))
	}
	return served
}
