// Run starts a program in a box: a network namespace of its own, plugged into a
// bridge of the host, with published ports, and gone again when the program ends.
//
//	go build ./examples/run
//	sudo ./run -p 8080:80 -- busybox httpd -f -p 80
//
// It keeps no state but in the kernel: run ls, rm and gc read back from names,
// aliases and comments what there is. The namespace that it is started in is the
// host: `ip netns exec H run ...` wires within H.
//
// Its code is in examples/internal/runner.
package main

import (
	"context"
	"os"

	"github.com/boxwire/boxwire/examples/internal/runner"
)

func main() { os.Exit(runner.Main(context.Background(), os.Args[1:], runner.Program{})) }
