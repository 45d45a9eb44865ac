package netnstest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/netns"
)

// A Box is a namespace of a topology and its link there.
type Box struct {
	*netns.NS
	Link  string       // "eth0"
	Addr4 netip.Prefix // the link's addresses, with the length of the network's prefix
	Addr6 netip.Prefix // the zero Prefix where namespaces have no IPv6, see [HasIPv6]
}

// Pair returns two namespaces with a veth pair between them:
//
//	a  eth0 10.77.0.1/24, fd77::1/64  ----  eth0 10.77.0.2/24, fd77::2/64  b
//
// Traffic flows when Pair returns. The namespaces are closed when the test ends, and the
// links end with them.
func Pair(t testing.TB) (a, b Box) {
	t.Helper()
	a = box(newAs(t, "a"), "eth0", "10.77.0.1/24", "fd77::1/64")
	b = box(newAs(t, "b"), "eth0", "10.77.0.2/24", "fd77::2/64")
	w := wiring{t: t, ctx: t.Context()}
	w.veth(a.NS, "eth0", b.NS, 0)
	w.address(a)
	w.address(b)
	return a, b
}

// Bridge returns a host with a bridge and n boxes on it. The boxes have a default route to
// the host:
//
//	host  br0 10.88.0.1/16, fd88::1/64
//	       +-- box1  ----  eth0 10.88.0.2/16, fd88::2/64  boxes[0]
//	       +-- box2  ----  eth0 10.88.0.3/16, fd88::3/64  boxes[1]
//	       ...
//
// The host does not forward packets until the test sets net.ipv4.ip_forward. A bridge has
// at most 1,023 ports.
func Bridge(t testing.TB, n int) (host Box, boxes []Box) {
	t.Helper()
	return On(t, newAs(t, "host"), n)
}

// On is [Bridge] for an existing host, such as that of [Host]. The host must not have a
// link br0.
func On(t testing.TB, ns *netns.NS, n int) (host Box, boxes []Box) {
	t.Helper()
	if n < 0 || n > maxPorts {
		t.Fatalf("netnstest: %d boxes on a bridge: it takes %d", n, maxPorts)
	}
	host = box(ns, "br0", "10.88.0.1/16", "fd88::1/64")
	w := wiring{t: t, ctx: t.Context()}
	bridge := w.bridge(ns, host.Link)
	addr4, addr6 := host.Addr4.Addr(), host.Addr6.Addr()
	for i := range n {
		addr4, addr6 = addr4.Next(), addr6.Next() // without IPv6, the zero Addr stays what it is
		b := Box{newAs(t, fmt.Sprintf("boxes[%d]", i)), "eth0", netip.PrefixFrom(addr4, host.Addr4.Bits()), netip.PrefixFrom(addr6, host.Addr6.Bits())}
		w.veth(ns, fmt.Sprintf("box%d", i+1), b.NS, bridge)
		w.address(b)
		w.defaultRoute(b, host)
		boxes = append(boxes, b)
	}
	if n > 0 {
		w.ready(ns, host.Link)
	}
	w.address(host)
	return host, boxes
}

// maxPorts is what a bridge of the kernel takes.
const maxPorts = 1023

// Host returns a host and its only neighbour, to which it has a default route:
//
//	host  wan0 203.0.113.1/24, 2001:db8::1/64  ----  eth0 203.0.113.2/24, 2001:db8::2/64  outside
//
// outside has no route to what is behind the host, like a neighbour on the Internet. [On]
// puts boxes behind the host.
func Host(t testing.TB) (host, outside Box) {
	t.Helper()
	host = box(newAs(t, "host"), "wan0", "203.0.113.1/24", "2001:db8::1/64")
	outside = box(newAs(t, "outside"), "eth0", "203.0.113.2/24", "2001:db8::2/64")
	w := wiring{t: t, ctx: t.Context()}
	w.veth(host.NS, host.Link, outside.NS, 0)
	w.address(host)
	w.address(outside)
	w.defaultRoute(host, outside)
	return host, outside
}

func box(ns *netns.NS, link, addr4, addr6 string) Box {
	b := Box{NS: ns, Link: link, Addr4: netip.MustParsePrefix(addr4)}
	if HasIPv6() {
		b.Addr6 = netip.MustParsePrefix(addr6)
	}
	return b
}
