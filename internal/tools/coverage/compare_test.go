package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

const header = "api\tmethod\tpath\tsummary\tauth\n"

func TestCompare(t *testing.T) {
	rows, err := readList(strings.NewReader(header +
		"cs\tGET\t/rooms/{roomId}/state\tstate\tt\n" +
		"cs\tPOST\t/rooms/{roomId}/invite\tinvite\tt\n" +
		"cs\tPOST\t/rooms/{roomId}/invite\tinvite by 3PID\tt\n" +
		"cs\tPOST\t{token_endpoint}\ttoken\tt\n" +
		"ss\tGET\t/version\tversion\tt\n"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	compare(rows, "cs", []operation{newOperation("GET", "/rooms/:room/state"), newOperation("GET", "/rooms/:room/invite")}).print(&out, "client-server")
	compare(rows, "ss", []operation{newOperation("GET", "/version")}).print(&out, "server-server")
	want := "client-server: 1 of 2\n" +
		"  missing  POST   /rooms/{roomId}/invite (invite)\n" +
		"  not counted, its path is the server's choice: POST {token_endpoint} (token)\n" +
		"server-server: 1 of 1\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestReadListRefuses(t *testing.T) {
	for _, bad := range []string{"", "method\tapi\n", header + "cs\tGET\n", header + "xx\tGET\t/p\ts\n"} {
		if _, err := readList(strings.NewReader(bad)); err == nil {
			t.Errorf("read %q without an error", bad)
		}
	}
}

// TestKeptList reads the list in the repository whole.
func TestKeptList(t *testing.T) {
	file, err := os.Open("../../../" + listPath)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := readList(file)
	if err != nil {
		t.Fatal(err)
	}
	if cs, ss := compare(rows, "cs", nil).listed, compare(rows, "ss", nil).listed; cs < 160 || ss < 30 {
		t.Errorf("the list has %d client-server and %d server-server operations, want all of them", cs, ss)
	}
}
