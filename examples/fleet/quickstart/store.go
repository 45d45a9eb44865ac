//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/store"
)

const (
	storeProgram = "store"
	storeReady   = "the store answers as process %d\n"
)

// storeMain is the program of the store: the embedded one, with its data in a directory and on a URL. A process has its sockets
// where its first thread was, so the store is in the namespace of the host that lab.Program started it on.
func storeMain(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	starting, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	// The network between the hosts is the sandbox's own, so TLS is left out, and a memory needs no fsync.
	s, err := store.StartEmbed(starting, store.EmbedConfig{Dir: args[0], Listen: args[1:], Insecure: true, NoSync: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Close()
	fmt.Printf(storeReady, os.Getpid())
	select {
	case <-ctx.Done():
		return 0
	case err := <-s.Err():
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
}
