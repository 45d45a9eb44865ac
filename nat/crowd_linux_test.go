package nat

import (
	"net/netip"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// select() with descriptors beyond 1024 kills the daemon (moby#52873): everything
// has to work where only such numbers are left. It is not parallel: other tests
// would give back lower ones.
func TestHighDescriptors(t *testing.T) {
	const many = 1100
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 3*many {
		t.Skipf("needs %d descriptors, %d are allowed (%v)", 3*many, limit.Cur, err)
	}
	for range many {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	s := newScene(t)
	err := s.host.WithFd(func(fd int) error {
		if fd < 1024 {
			t.Errorf("the namespace's descriptor is %d", fd)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s.box, ":80")
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	all := keep(t, newKeeper(s.gw, always(State{Networks: []Network{network0()}, Ports: []Port{web}})))
	proxied(t, s.gw, TCP, "[::1]:8081", "10.88.0.2:80")
	for addr, from := range map[string]*netns.NS{"203.0.113.1:8080": s.outside, "[::1]:8081": s.host} {
		if _, err := ask(t, from, addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if flows, err := s.gw.Flows(t.Context(), netip.MustParseAddr("10.88.0.2")); err != nil || len(flows) == 0 {
		t.Errorf("%v, %v", flows, err)
	}
	if causes, err := s.gw.Explain(t.Context(), web, Hints{Box: s.box}); err != nil || len(causes) != 0 {
		t.Errorf("%v, %v", causes, err)
	}
	if err := s.gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.gw.Sync(t.Context(), State{Ports: []Port{web}}); err != nil {
		t.Error(err)
	}
	expectPorts(t, s.gw, web)
	if len(all) != 0 {
		t.Errorf("own changes were taken for damage: %v", <-all)
	}
}

// Rules left after a crash shadow new ones (podman#27516): a program that ends
// without a word leaves its ports, and the next one's lead to its own boxes.
func TestWhatACrashLeftShadowsNothing(t *testing.T) {
	t.Parallel()
	s := wire(t)
	serve(t, s.sibling, ":80") // nobody serves in the box that is gone
	old, now := tcp("0.0.0.0:8080", "10.88.0.2:80", "old"), tcp("203.0.113.1:8080", "10.88.0.3:80", "now")
	before := func(t *testing.T) {
		t.Helper()
		gw := open(t, another(t, s.host))
		if err := gw.Sync(t.Context(), State{Networks: []Network{network0()}, Ports: []Port{old}}); err != nil {
			t.Fatal(err)
		}
		gw.Close() // the kernel does as much for a process that is killed
	}
	for name, takeOver := range map[string]func(*NAT) error{
		"Sync": func(gw *NAT) error {
			return gw.Sync(t.Context(), State{Networks: []Network{network0()}, Ports: []Port{now}})
		},
		"Publish": func(gw *NAT) error { return gw.Publish(t.Context(), now) },
	} {
		before(t)
		gw, err := Open(t.Context(), s.host, Options{Alive: func(owner string) bool { return owner != "old" }})
		if err != nil {
			t.Fatal(err)
		}
		if err := takeOver(gw); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		expectPorts(t, gw, now)
		if got, err := ask(t, s.outside, "203.0.113.1:8080"); err != nil || got != "203.0.113.9" {
			t.Errorf("%s: the outside reaches %q, %v", name, got, err)
		}
		if err := gw.Unpublish(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		gw.Close()
	}
}
