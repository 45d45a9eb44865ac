package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// askOnce makes a link ask once for a neighbour and then give up: what would be
// late otherwise is lost.
func askOnce(t *testing.T, l Link) {
	t.Helper()
	conn, err := nsconn.Shared(l.NS(), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	const name, parms, ifindex, probes = 1, 6, 1, 11 // NDTA_NAME, NDTA_PARMS, NDTPA_IFINDEX, NDTPA_MCAST_PROBES
	for table, family := range map[string]byte{"arp_cache": unix.AF_INET, "ndisc_cache": unix.AF_INET6} {
		b := nl.AppendString([]byte{family, 0, 0, 0}, name, table)
		b, at := nl.Begin(b, parms)
		b = nl.AppendU32(b, ifindex, uint32(l.Index))
		b = nl.AppendU32(b, probes, 1)
		nl.End(b, at)
		if err := conn.Call(t.Context(), nl.Request{Type: unix.RTM_SETNEIGHTBL, Body: b}, nil); err != nil {
			t.Fatal(table, err)
		}
	}
}

// echoes answers datagrams to port 7 of the namespace, until that is closed.
func echoes(t *testing.T, ns *netns.NS) {
	t.Helper()
	c, err := ns.ListenPacket(t.Context(), "udp", "[::]:7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				c.WriteTo(b[:n], from)
			}
		}
	}()
}

// firstGoes sends one datagram to port 7 and takes the answer.
func firstGoes(ctx context.Context, from *netns.NS, to netip.Addr) error {
	return goes(ctx, from, to, 5)
}

// goes does so with a datagram of so many bytes.
func goes(ctx context.Context, from *netns.NS, to netip.Addr, size int) error {
	c, err := from.Dial(ctx, "udp", netip.AddrPortFrom(to, 7).String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, size)); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(5 * time.Second)) // an answer that was lost does not come
	n, err := c.Read(make([]byte, size+1))
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes came back of %d", n, size)
	}
	return err
}

// A routedHosts is a host with a bridge, a neighbour on it, and an outside behind the host.
type routedHosts struct {
	host, neighbour, outside *netns.NS
	br                       Link
}

var (
	hostAddrs      = prefixes("10.88.0.1/16", "fd88::1/64")
	neighbourAddrs = prefixes("10.88.0.2/16", "fd88::2/64")
	outsideAddrs   = prefixes("203.0.113.2/24", "2001:db8::2/64")
)

func (s *routedHosts) plug(t *testing.T, box *netns.NS, name string, addrs []netip.Prefix) (outer, eth Link) {
	t.Helper()
	outer = mustCreate(t, s.host, Spec{Name: name, Up: true, Master: s.br.Ref(), Kind: Veth{Peer: Spec{NS: box, Name: "eth0", Up: true, Addrs: addrs}}})
	eth, err := Get(t.Context(), box, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	askOnce(t, eth)
	for _, gw := range hostAddrs {
		family := "-4"
		if gw.Addr().Is6() {
			family = "-6"
		}
		defaultRoute(t, box, family, gw.Addr())
	}
	return outer, eth
}

// defaultRoute sends everything to the gateway.
func defaultRoute(t *testing.T, ns *netns.NS, family string, gw netip.Addr) {
	t.Helper()
	b := make([]byte, unix.SizeofRtMsg, 64)
	b[0], b[4], b[5], b[7] = unix.AF_INET, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RTN_UNICAST
	if family == "-6" {
		b[0] = unix.AF_INET6
	}
	conn, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	if err == nil {
		b = nl.AppendAttr(b, unix.RTA_GATEWAY, gw.AsSlice())
		err = conn.Call(t.Context(), nl.Request{Type: unix.RTM_NEWROUTE, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: b}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// bridge makes the bridge, and plugs the neighbour in.
func (s *routedHosts) bridge(t *testing.T) {
	t.Helper()
	s.br = mustCreate(t, s.host, Spec{Name: "br0", Up: true, Kind: Bridge{}, Addrs: hostAddrs})
	askOnce(t, s.br)
	s.neighbour = netnstest.New(t)
	outer, _ := s.plug(t, s.neighbour, "neighbour", neighbourAddrs)
	echoes(t, s.neighbour)
	if err := outer.WaitReachable(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func newRoutedHosts(t *testing.T) *routedHosts {
	t.Helper()
	s := &routedHosts{host: netnstest.New(t), outside: netnstest.New(t)}
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := s.host.SetSysctl(t.Context(), key, "1"); err != nil {
			t.Skipf("the host cannot forward: %v", err)
		}
	}
	up := mustCreate(t, s.host, Spec{Name: "up0", Up: true, Addrs: prefixes("203.0.113.1/24", "2001:db8::1/64"), Kind: Veth{Peer: Spec{
		NS: s.outside, Name: "eth0", Up: true, Addrs: outsideAddrs,
	}}})
	defaultRoute(t, s.outside, "-4", netip.MustParseAddr("203.0.113.1"))
	defaultRoute(t, s.outside, "-6", netip.MustParseAddr("2001:db8::1"))
	askOnce(t, up)
	if err := up.WaitReachable(t.Context()); err != nil {
		t.Fatal(err)
	}
	echoes(t, s.host)
	echoes(t, s.outside)
	return s
}

// The first packet arrives and is answered, in each direction, of either family: on
// a bridge that is new and on one that is old, for an address that is new, and for
// one that another box had, announced.
func TestReachableFromTheFirstPacket(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	rounds := 100
	if testing.Short() {
		rounds = 12
	}
	ctx := t.Context()
	s := newRoutedHosts(t)
	s.bridge(t)
	addrs, next := prefixes("10.88.1.0/16", "fd88::1:0/64"), 0
	for i := range rounds {
		if i%10 == 9 {
			if err := s.br.Delete(ctx); err != nil {
				t.Fatal(err)
			}
			if l, err := Get(ctx, s.host, "neighbour"); err == nil {
				if err := l.Delete(ctx); err != nil {
					t.Fatal(err)
				}
			}
			s.bridge(t)
		}
		taken := i%2 == 1
		if !taken {
			next++
			addrs = []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, 1, byte(next)}), 16),
				netip.MustParsePrefix(fmt.Sprintf("fd88::1:%x/64", next)),
			}
		}
		box, err := netns.New(ctx)
		if err != nil {
			t.Fatal(err)
		}
		outer, eth := s.plug(t, box, "web0", addrs)
		if taken {
			err = eth.Announce(ctx, addrs[0].Addr(), addrs[1].Addr())
		} else {
			err = outer.WaitReachable(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		echo, err := box.ListenPacket(ctx, "udp", "[::]:7")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			b := make([]byte, 16)
			for n, from, err := echo.ReadFrom(b); err == nil; n, from, err = echo.ReadFrom(b) {
				echo.WriteTo(b[:n], from)
			}
		}()
		for f := range 2 {
			for _, way := range []struct {
				name string
				from *netns.NS
				to   netip.Addr
			}{
				{"outside to box", s.outside, addrs[f].Addr()},
				{"neighbour to box", s.neighbour, addrs[f].Addr()},
				{"host to box", s.host, addrs[f].Addr()},
				{"box to host", box, hostAddrs[f].Addr()},
				{"box to neighbour", box, neighbourAddrs[f].Addr()},
				{"box to outside", box, outsideAddrs[f].Addr()},
			} {
				if err := firstGoes(ctx, way.from, way.to); err != nil {
					t.Fatalf("round %d, address taken over: %v, %s %s: %v", i+1, taken, way.name, way.to, err)
				}
			}
		}
		echo.Close()
		if err := outer.Delete(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		box.Close()
	}
}

// What is missing is named when the context ends, from whichever end it is asked;
// once it is there the wait is over.
func TestWaitReachableNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, box := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Kind: Bridge{STP: new(true), ForwardDelay: new(2 * time.Second)}})
	web := mustCreate(t, host, Spec{Name: "web0", Up: true, Master: br.Ref(), Kind: Veth{Peer: Spec{NS: box, Name: "eth0"}}})
	eth, err := Get(ctx, box, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	missing := func(want string) {
		t.Helper()
		for _, l := range []Link{web, eth} {
			ending, cancel := context.WithCancel(ctx)
			later(t, l.NS(), func() error { cancel(); return nil })
			wantErr(t, l.WaitReachable(ending), context.Canceled, want, "link.WaitReachable link "+l.Name)
		}
	}
	missing("link ") // either end is not up
	if err := eth.SetUp(ctx); err != nil {
		t.Fatal(err)
	}
	for _, l := range []Link{web, eth} {
		if _, err := l.WaitCarrier(ctx); err != nil {
			t.Fatal(err)
		}
	}
	missing("web0 is disabled as the port of its bridge")
	if err := br.SetUp(ctx); err != nil {
		t.Fatal(err)
	}
	missing("web0 is listening as the port of its bridge")
	for _, l := range []Link{eth, web} {
		if err := l.WaitReachable(ctx); err != nil {
			t.Error(err)
		}
	}
	if p := showPort(t, host, "web0"); p["state"] != "forwarding" {
		t.Errorf("ip shows %v", p["state"])
	}
	if err := web.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, web.WaitReachable(ctx), os.ErrNotExist)
	wantErr(t, Link{}.WaitReachable(ctx), os.ErrInvalid)
}

// Other links are reachable once they are up: one without another end, and a pair of
// which both ends are here.
func TestWaitReachableOfOtherLinks(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	for _, s := range []Spec{
		{Name: "ifb0", Up: true, Kind: IFB{}},
		{Name: "a", Up: true, Kind: Veth{Peer: Spec{Name: "b", Up: true}}},
	} {
		if err := mustCreate(t, ns, s).WaitReachable(ctx); err != nil {
			t.Error(err)
		}
	}
	if a := ipLinks(t, ns)["a"]; a.OperState != "UP" {
		t.Errorf("ip shows the state %s", a.OperState)
	}
	lo, err := Get(ctx, ns, "lo")
	if err == nil {
		err = errors.Join(lo.SetUp(ctx), lo.WaitReachable(ctx))
	}
	if err != nil {
		t.Error(err)
	}
}
