//go:build linux

package lab

import (
	"fmt"
	"os"
	"sync/atomic"
)

// programEnv names the program that a process of a lab runs.
const programEnv = "BOXWIRE_LAB_PROGRAM"

// etcdProgram is the one that the package brings itself.
const etcdProgram = "etcd"

// programs are those that Main was given.
var programs atomic.Pointer[map[string]func(args []string) int]

// Main is what main and TestMain call first. It makes the programs known that [Host.Program] can run, each a function that
// gets its arguments, without the program's name, and returns the exit status. In a process that a lab has started, Main
// runs the program and does not return. Members of etcd need no entry.
func Main(known map[string]func(args []string) int) {
	all := map[string]func([]string) int{etcdProgram: etcdMain}
	for name, fn := range known {
		all[name] = fn
	}
	programs.Store(&all)
	name, ok := os.LookupEnv(programEnv)
	if !ok {
		return
	}
	os.Unsetenv(programEnv) // processes of its own are none of the lab's
	fn := all[name]
	if fn == nil {
		fmt.Fprintf(os.Stderr, "lab: no program %q\n", name)
		os.Exit(2)
	}
	os.Exit(fn(os.Args[1:]))
}

func registered(name string) bool {
	all := programs.Load()
	return all != nil && (*all)[name] != nil
}
