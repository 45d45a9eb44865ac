package nat

import (
	"net/netip"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// select() with descriptors beyond 1024 kills the daemon (moby#52873): everything
// has to work where only such numbers are left. It is not parallel: other tests
// would give back lower ones.
func TestHighDescriptors(t *testing.T) {
	netnstest.NeedIPv6(t)
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
	s := newTopology(t)
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
	all := maintain(t, newMaintainer(s.gw, always(State{Networks: []Network{network0()}, Ports: []Port{web}})))
	proxied(t, s.gw, TCP, "[::1]:8081", "10.88.0.2:80")
	for addr, from := range map[string]*netns.NS{"203.0.113.1:8080": s.outside, "[::1]:8081": s.host} {
		if _, err := ask(t, from, addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if flows, err := s.gw.ListFlows(t.Context(), netip.MustParseAddr("10.88.0.2")); err != nil || len(flows) == 0 {
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
