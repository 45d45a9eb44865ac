//go:build !linux

// Run starts a program in a box. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "run: network namespaces need Linux")
	os.Exit(125)
}
