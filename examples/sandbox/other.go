//go:build !linux

// Sandbox runs a program in a box. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "sandbox: network namespaces need Linux")
	os.Exit(125)
}
