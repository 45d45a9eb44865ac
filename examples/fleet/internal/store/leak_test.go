package store

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// It is not parallel: it counts the goroutines of the process.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	c := raw(t, shared)
	_, err := c.Get(t.Context(), "x") // connects
	must(t, err)
	before := runtime.NumGoroutine()
	for range 3 {
		m := newMember(t)
		s := open(t, m.Embedded)
		ctx, cancel := context.WithCancel(t.Context())
		kept := make(chan error)
		go func() { kept <- s.KeepAlive(ctx, aliveOf(idOf(1), 1, "one"), time.Second, nil) }()
		for snapshot, err := range s.Follow(t.Context()) {
			must(t, err)
			if len(snapshot.Alive) == 1 {
				break
			}
		}
		cancel()
		must(t, <-kept)
		s.Close()
		m.Close()
	}
	defer func() {
		if t.Failed() {
			stacks := make([]byte, 1<<20)
			t.Logf("%s", stacks[:runtime.Stack(stacks, true)])
		}
	}()
	poll(t, "the goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}
