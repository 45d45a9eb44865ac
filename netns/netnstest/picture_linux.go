package netnstest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/netns"
)

// A made is a namespace that a test has made.
type made struct {
	id   netns.ID
	part string // in a topology
}

// machines are the namespaces of the tests that go on.
var machines = struct {
	sync.Mutex
	of map[testing.TB][]made
}{of: make(map[testing.TB][]made)}

// note adds a namespace to those of a test.
func note(t testing.TB, ns *netns.NS, part string) {
	machines.Lock()
	defer machines.Unlock()
	machines.of[t] = append(machines.of[t], made{ns.ID(), part})
}

// leave returns the namespaces of a test that ends, when it is called for the first time. All of them
// are still open then.
func leave(t testing.TB) []made {
	machines.Lock()
	defer machines.Unlock()
	all := machines.of[t]
	delete(machines.of, t)
	return all
}

// draw writes into the test's log how the namespaces of a test are wired to each other.
func draw(t testing.TB, all []made) {
	t.Helper()
	if len(all) < 2 {
		return
	}
	// The test's own context is over in a Cleanup.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	parts := make(map[uint64]string)
	for _, m := range all {
		parts[m.id.Ino] = m.part
	}
	s, err := topology.Read(ctx, topology.Options{Some: func(info netns.Info) bool {
		_, ok := parts[info.ID.Ino]
		return ok
	}})
	if err != nil {
		t.Logf("how the namespaces are wired cannot be read: %v", err)
		return
	}
	s.Notes = nil // of processes of others
	for _, n := range s.Namespaces {
		if part := parts[n.Inode]; part != "" && !n.Own {
			n.Names = []string{part}
		}
	}
	var b strings.Builder
	if err := topology.WriteTree(&b, s); err != nil {
		t.Log(err)
	}
	t.Logf("the namespaces of the test:\n%s", b.String())
}
