package failures

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// ip runs ip on the host, and returns what it prints.
func (n *node) ip(args ...string) string {
	n.w.t.Helper()
	return testutil.Run(n.w.t, n.host.NS, "ip", args...)
}

// kernel is what a host's kernel has of the fleet, as ip writes it: routes, and the tunnel link with its addresses.
func (w *world) kernel(n *node) []string {
	w.t.Helper()
	var lines []string
	for _, args := range []string{"-4 route show proto 201", "-6 route show proto 201", "-o -4 addr show dev fl0", "-o -6 addr show dev fl0", "-o link show dev fl0"} {
		out, err := testutil.Try(w.t, n.host.NS, "ip", strings.Fields(args)...)
		if err != nil {
			out = err.Error()
		}
		for line := range strings.Lines(out) {
			// A link that is made anew has another index.
			if at := strings.Index(line, ": fl0"); at >= 0 {
				line = line[at:]
			}
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	slices.Sort(lines)
	return lines
}

// routes are the kernel's routes of the fleet to a peer, one of each family, as ip writes them.
func (n *node) routes(to *node) []string {
	n.w.t.Helper()
	var all []string
	for _, p := range to.prefixes {
		family := "-4"
		if p.Addr().Is6() {
			family = "-6"
		}
		out := testutil.Run(n.w.t, n.host.NS, "ip", family, "route", "show", "exact", p.String(), "proto", "201")
		all = append(all, strings.TrimSpace(out))
	}
	return all
}

// forgetKernel leaves of the fleet in the host's kernel what a machine has that has just booted: nothing.
func (n *node) forgetKernel() {
	n.w.t.Helper()
	ctx := n.w.soon()
	_, err := route.Sync(ctx, n.host.NS, 201)
	n.w.must(err)
	tunnel, err := link.Get(ctx, n.host.NS, "fl0")
	if err == nil {
		err = tunnel.Delete(ctx)
	}
	n.w.must(netns.IgnoreNotExist(err))
}

// refused waits until the kernel refuses packets to a node's box: of a box, and of the host itself. The host may answer as often as
// it is asked: else it says nothing for seconds, once in a while (net.ipv4.icmp_ratelimit).
func (w *world) refused(from, to *node) {
	w.t.Helper()
	for _, setting := range []string{"net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"} {
		w.must(from.host.NS.SetSysctl(w.soon(), setting, "0"))
	}
	for _, addr := range to.box.Addrs {
		why, err := lab.WaitUnreachable(w.soon(), from.box.NS, addr.Addr())
		w.must(err)
		want := syscall.EHOSTUNREACH
		if addr.Addr().Is6() {
			want = syscall.ENETUNREACH // ICMPv6's code for it is that of no route
		}
		if why != want {
			w.t.Errorf("%v to %v: %v, want %v", from.box, addr, why, want)
		}
		w.refusedHost(from, addr.Addr())
	}
}

// refusedHost checks that the host's own calls fail at once.
func (w *world) refusedHost(from *node, to netip.Addr) {
	w.t.Helper()
	conn, err := from.host.NS.Dial(w.soon(), "tcp", netip.AddrPortFrom(to, 9).String())
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.EHOSTUNREACH) {
		w.t.Errorf("%s to %v: %v, want %v", from.host, to, err, syscall.EHOSTUNREACH)
	}
}
