//go:build !linux

// Cni is a CNI plugin of type "boxwire". It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "cni: network namespaces need Linux")
	os.Exit(1)
}
