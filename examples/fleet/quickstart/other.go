//go:build !linux

// Quickstart shows a fleet at work on Linux; on other systems it only says so.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "quickstart: network namespaces are a Linux feature: run this on Linux 5.10 or newer")
	os.Exit(1)
}
