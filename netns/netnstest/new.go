package netnstest

import (
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns"
)

// New returns a fresh unnamed network namespace with its loopback link up. It is
// closed when the test and its subtests are over. Tests that use it may run in
// parallel. When the test has failed, the namespace's links, addresses, routes,
// rules, neighbours, nftables and sockets are printed first; they are read without
// any program.
//
// Where namespaces are forbidden, the test is skipped with the name of the
// setting that forbids them, or fails if BOXWIRE_REQUIRE_NETNS is 1. It fails in a
// package whose TestMain does not call [Main]: a skip would hide that nothing ran.
func New(t testing.TB) *netns.NS {
	t.Helper()
	return newAs(t, "")
}

// newAs is [New] for a namespace that has a part in a topology, which the dump
// names.
func newAs(t testing.TB, part string) *netns.NS {
	t.Helper()
	Need(t)
	ns, err := netns.New(t.Context())
	if err != nil {
		t.Fatalf("netnstest: %v", err)
	}
	if err := likeTheHost(t.Context(), ns); err != nil {
		ns.Close()
		t.Fatalf("netnstest: %v", err)
	}
	note(t, ns, part)
	t.Cleanup(func() {
		all := leave(t)
		if t.Failed() {
			draw(t, all)
			dump(t, ns, part)
		}
		if err := ns.Close(); err != nil {
			t.Errorf("netnstest: closing the namespace: %v", err)
		}
	})
	return ns
}

// called says that Main was.
var called bool

// Need skips the test, or fails it, as [New] does where namespaces are
// forbidden. It is for tests that make their namespaces themselves.
func Need(t testing.TB) {
	t.Helper()
	if !called {
		t.Fatal("netnstest.Main was not called: the package needs func TestMain(m *testing.M) { netnstest.Main(m) }")
	}
	if forbidden == "" {
		return
	}
	if os.Getenv("BOXWIRE_REQUIRE_NETNS") == "1" {
		t.Fatal(forbidden)
	}
	t.Skip(forbidden)
}
