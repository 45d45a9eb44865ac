//go:build linux

package lab_test

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// soon ends long after everything here should have happened.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// reachBoth says that two hosts reach all addresses of each other.
func reachBoth(t *testing.T, a, b *lab.Host) {
	t.Helper()
	for _, addr := range b.Addrs() {
		must(t, lab.Reach(soon(t), a.NS, b.NS, addr))
	}
	for _, addr := range a.Addrs() {
		must(t, lab.Reach(soon(t), b.NS, a.NS, addr))
	}
}

// silent says that no packet of a stream gets from one host to another: those that were sent are lost. The last of them was
// sent before Stop gave up.
func silent(t *testing.T, a, b *lab.Host) {
	t.Helper()
	s, err := lab.StartStream(t.Context(), a.NS, b.NS, b.Addr4().Addr(), lab.StreamOptions{Limit: 20 * time.Millisecond, Patience: 100 * time.Millisecond})
	must(t, err)
	stats, err := s.Stop(t.Context())
	must(t, err)
	if stats.Received != 0 || stats.Sent+stats.Refused == 0 {
		t.Errorf("%v to %v: %v", a, b, stats)
	}
}

func TestSegmentsAndRouter(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2, 1}})
	if len(l.Hosts) != 3 || l.Hosts[0].Addr4() != netip.MustParsePrefix("198.18.0.2/22") || l.Hosts[2].Segment != 1 {
		t.Fatalf("hosts: %v, %v on segment %d", l.Hosts, l.Hosts[0].Addr4(), l.Hosts[2].Segment)
	}
	reachBoth(t, l.Hosts[0], l.Hosts[1])
	reachBoth(t, l.Hosts[0], l.Hosts[2])
	// The one is a neighbour, the other behind the router.
	for to, want := range map[*lab.Host]string{l.Hosts[1]: "", l.Hosts[2]: "198.18.0.1"} {
		var routes []struct {
			Gateway string `json:"gateway"`
		}
		testutil.JSON(t, l.Hosts[0].NS, &routes, "ip", "-j", "route", "get", to.Addr4().Addr().String())
		if len(routes) != 1 || routes[0].Gateway != want {
			t.Errorf("route to %v: %+v, want the gateway %q", to, routes, want)
		}
	}
	late, err := l.AddHost(t.Context(), 1)
	must(t, err)
	if late.Name != "host4" {
		t.Errorf("the next host is %v", late)
	}
	reachBoth(t, late, l.Hosts[1])
}

func TestCutAndHeal(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2}})
	a, b := l.Hosts[0], l.Hosts[1]
	s, err := lab.StartStream(t.Context(), a.NS, b.NS, b.Addr4().Addr(), lab.StreamOptions{})
	must(t, err)
	must(t, s.WaitReceived(soon(t), 20))
	must(t, b.Cut(t.Context()))
	silent(t, a, b)
	must(t, b.Heal(t.Context()))
	must(t, s.WaitReceived(soon(t), 20))
	stats, err := s.Stop(t.Context())
	must(t, err)
	if stats.Lost == 0 || stats.Received+stats.Lost != stats.Sent || stats.FirstLost < 20 {
		t.Errorf("a stream over a cut: %v", stats)
	}
	reachBoth(t, a, b)
}

func TestPartition(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{3, 2}})
	h := l.Hosts
	must(t, l.Partition(t.Context(), []*lab.Host{h[0], h[3]}, []*lab.Host{h[1], h[2]}))
	reachBoth(t, h[0], h[3]) // through the router
	reachBoth(t, h[1], h[2]) // by the switch
	silent(t, h[0], h[1])    // by the switch
	silent(t, h[2], h[3])    // through the router
	silent(t, h[4], h[0])    // h[4] is in no group
	must(t, l.Partition(t.Context(), []*lab.Host{h[0], h[1]}))
	reachBoth(t, h[0], h[1])
	reachBoth(t, h[2], h[4])
	silent(t, h[1], h[2])
	must(t, l.Partition(t.Context()))
	for _, other := range h[1:] {
		reachBoth(t, h[0], other)
	}
	var links []struct {
		Name string `json:"ifname"`
	}
	for _, name := range []string{"a0", "b0"} {
		if out, err := testutil.Try(t, l.Router, "ip", "-j", "link", "show", name); err == nil {
			t.Errorf("the router has %s: %s", name, out)
		}
	}
	testutil.JSON(t, l.Router, &links, "ip", "-j", "link")
	if len(links) != 3 {
		t.Errorf("links of the router: %+v", links)
	}
	if err := l.Partition(t.Context(), h[:2], h[1:3]); err == nil {
		t.Error("a host in two groups was taken")
	}
}

func TestUplinkChanges(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2, 1}})
	a, b, far := l.Hosts[0], l.Hosts[1], l.Hosts[2]
	old := b.Addr4()
	must(t, b.ChangeAddrs(t.Context()))
	if b.Addr4() == old {
		t.Errorf("the address is still %v", old)
	}
	reachBoth(t, a, b)
	reachBoth(t, far, b)
	must(t, b.RenameUplink(t.Context(), "wan0"))
	reachBoth(t, a, b)
	reachBoth(t, far, b)
	must(t, b.ReplaceUplink(t.Context(), "wan1"))
	if b.Uplink() != "wan1" {
		t.Errorf("the uplink is %s", b.Uplink())
	}
	reachBoth(t, a, b)
	reachBoth(t, far, b)
	must(t, b.SetMTU(t.Context(), 1400))
	var links []struct {
		MTU int `json:"mtu"`
	}
	testutil.JSON(t, b.NS, &links, "ip", "-j", "link", "show", "wan1")
	if len(links) != 1 || links[0].MTU != 1400 {
		t.Errorf("MTU: %+v", links)
	}
	// The switch drops what is longer.
	s, err := lab.StartStream(t.Context(), a.NS, b.NS, b.Addr4().Addr(), lab.StreamOptions{Size: 1400, Limit: 20 * time.Millisecond})
	must(t, err)
	stats, err := s.Stop(t.Context())
	must(t, err)
	if stats.Received != 0 || stats.Lost != stats.Sent {
		t.Errorf("packets of 1428 bytes over 1400: %v", stats)
	}
	reachBoth(t, a, b)
}

func TestBoxes(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2}})
	a, b := l.Hosts[0], l.Hosts[1]
	box1, err := a.Box(t.Context(), lab.BoxSpec{Addrs: []netip.Prefix{netip.MustParsePrefix("10.100.1.2/24")}})
	must(t, err)
	box2, err := b.Box(t.Context(), lab.BoxSpec{Addrs: []netip.Prefix{netip.MustParsePrefix("10.100.2.2/24")}, MTU: 1400})
	must(t, err)
	must(t, lab.Reach(soon(t), box1.NS, a.NS, netip.MustParseAddr("10.100.1.1")))
	must(t, a.Forward(t.Context()))
	must(t, b.Forward(t.Context()))
	must(t, route.Add(t.Context(), a.NS, route.To(netip.MustParsePrefix("10.100.2.0/24"), b.Addr4().Addr())))
	must(t, route.Add(t.Context(), b.NS, route.To(netip.MustParsePrefix("10.100.1.0/24"), a.Addr4().Addr())))
	must(t, lab.Reach(soon(t), box1.NS, box2.NS, box2.Addr()))

	must(t, route.Replace(t.Context(), a.NS, route.Route{Dst: netip.MustParsePrefix("10.100.2.0/24"), Type: route.TypeUnreachable}))
	// Without the limit the host answers at once; see WaitUnreachable.
	must(t, a.NS.SetSysctl(t.Context(), "net.ipv4.icmp_ratelimit", "0"))
	for _, from := range []*netns.NS{a.NS, box1.NS} { // by its route, and by ICMP
		why, err := lab.WaitUnreachable(soon(t), from, box2.Addr())
		must(t, err)
		if why != syscall.EHOSTUNREACH {
			t.Errorf("unreachable from %v by %v", from, why)
		}
	}
	if _, err := a.Box(t.Context(), lab.BoxSpec{Addrs: []netip.Prefix{netip.MustParsePrefix("10.100.1.1/24")}}); err == nil {
		t.Error("a box with the gateway's address was made")
	}
}

func TestStreamCountsRefusals(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2}})
	a, b := l.Hosts[0], l.Hosts[1]
	s, err := lab.StartStream(t.Context(), a.NS, b.NS, b.Addr4().Addr(), lab.StreamOptions{})
	must(t, err)
	must(t, s.WaitReceived(soon(t), 10))
	to := netip.PrefixFrom(b.Addr4().Addr(), 32)
	must(t, route.Add(t.Context(), a.NS, route.Route{Dst: to, Type: route.TypeUnreachable}))
	must(t, s.WaitRefused(soon(t), 10))
	must(t, route.Delete(t.Context(), a.NS, route.Route{Dst: to, Type: route.TypeUnreachable}))
	must(t, s.WaitReceived(soon(t), 10))
	stats, err := s.Stop(t.Context())
	must(t, err)
	if stats.Refused < 10 || stats.RefusedBy != syscall.EHOSTUNREACH || stats.Lost != 0 || stats.Received != stats.Sent || stats.Duplicate != 0 {
		t.Errorf("%v", stats)
	}
	again, err := s.Stop(t.Context())
	if err != nil || again != stats {
		t.Errorf("stopped again: %v, %v, want %v", again, err, stats)
	}
}

func TestWrites(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{1}})
	h := l.Hosts[0]
	w, err := lab.CountWrites(t.Context(), h.NS)
	must(t, err)
	changes, err := w.Changes(soon(t))
	if err != nil || len(changes) != 0 {
		t.Fatalf("before anything was done: %v, %v", changes, err)
	}
	testutil.Run(t, h.NS, "ip", "route", "add", "10.9.0.0/16", "via", "198.18.0.1", "proto", "201")
	testutil.Run(t, h.NS, "ip", "route", "show") // reading is no change
	testutil.Run(t, h.NS, "ip", "addr", "add", "10.8.0.1/32", "dev", "lo")
	testutil.Run(t, h.NS, "ip", "route", "del", "10.9.0.0/16")
	testutil.Run(t, h.NS, "ip", "link", "set", "lo", "mtu", "60000")
	changes, err = w.Stop(soon(t))
	must(t, err)
	var got []string
	for _, c := range changes {
		got = append(got, c.Op+" "+c.What)
	}
	want := []string{
		"new route 10.9.0.0/16 protocol 201", "new address 10.8.0.1/32", "new route 10.8.0.1/32 protocol 2",
		"delete route 10.9.0.0/16 protocol 201", "new link lo",
	}
	// The kernel reports an address behind the routes that it makes for it.
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("changes:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if changes[0].What != "route 10.9.0.0/16 protocol 201" || changes[len(changes)-1].What != "link lo" || changes[0].Port == 0 {
		t.Errorf("in their order: %v", changes)
	}
	if _, err := w.Stop(soon(t)); err == nil {
		t.Error("stopped twice without an error")
	}
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{})
	p := l.Hosts[0].Program("clock", l.Hosts[1].Addr4().Addr().String()+":9")
	must(t, p.Start())
	ns, pid, dir := l.Hosts[2].NS, p.Pid(), l.Dir
	must(t, l.Close())
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("the process is there")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory: %v", err)
	}
	if _, err := netns.Do(t.Context(), ns, func(context.Context) (int, error) { return 0, nil }); err == nil {
		t.Error("the handle is open")
	}
	if err := p.Start(); err == nil {
		t.Error("a process started in a closed lab")
	}
	must(t, l.Close())
}
