//go:build linux

// Fleet wires boxes on many machines: each machine has a prefix of its own, and every box reaches every other by its address.
// The machines agree by a store, etcd.
//
//	fleet agent -name lab -store embed        the first machine; its store is for this machine alone
//	fleet agent -name lab -store https://a:2379,https://b:2379 -ca ca.pem -cert me.pem -key me.key
//	fleet box run -p 8080:80 -- CMD           a box on this machine, and other verbs of boxes: exec, ls, rm, gc
//	fleet ls                                  the machines, as the agent of this one sees them
//	fleet explain PEER                        why a machine is not reached
//	fleet forget NODE                         let a machine go that does not come back
package main

import (
	"os"

	"github.com/boxwire/boxwire/examples/fleet/internal/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
