package nat

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// tellPorts answers what comes to port 7 of ns, TCP and UDP, with the sender's address
// and port. It returns the UDP socket.
func tellPorts(t *testing.T, ns *netns.NS) net.PacketConn {
	t.Helper()
	ln, err := ns.Listen(t.Context(), "tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Write([]byte(c.RemoteAddr().String()))
			go func() { // it ends when the visitor does
				defer c.Close()
				c.Read(make([]byte, 1))
			}()
		}
	}()
	pc, err := ns.ListenPacket(t.Context(), "udp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			a := from.(*net.UDPAddr).AddrPort()
			pc.WriteTo([]byte(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()), from)
		}
	}()
	return pc
}

// seenAs sends from a port of ns and returns who the server at addr takes it for.
// The connection stays until the test's end.
func seenAs(t *testing.T, ns *netns.NS, proto Proto, from, addr string) netip.AddrPort {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var d net.Dialer
	local := net.Addr(net.TCPAddrFromAddrPort(ap(from)))
	if proto == UDP {
		local = net.UDPAddrFromAddrPort(ap(from))
	}
	d.LocalAddr = local
	network := proto.String() + "4"
	if ap(addr).Addr().Is6() {
		network = proto.String() + "6"
	}
	c, err := ns.DialWith(ctx, d, network, addr)
	if err != nil {
		t.Errorf("%v %s to %s: %v", proto, from, addr, err)
		return netip.AddrPort{}
	}
	t.Cleanup(func() { c.Close() })
	b := make([]byte, 64)
	for deadline := time.Now().Add(10 * time.Second); ; {
		c.SetDeadline(time.Now().Add(time.Second))
		if proto == UDP {
			c.Write([]byte("?"))
		}
		n, err := c.Read(b)
		if err == nil {
			return ap(string(b[:n]))
		}
		if time.Now().After(deadline) {
			t.Errorf("%v %s to %s: %v", proto, from, addr, err)
			return netip.AddrPort{}
		}
	}
}

var waysOut = []struct {
	proto      Proto
	from, to   string
	box, saddr string // the boxes' network, and the address outside
}{
	{TCP, "0.0.0.0:5000", "203.0.113.9:7", "10.88.0.", "203.0.113.1"},
	{UDP, "0.0.0.0:5000", "203.0.113.9:7", "10.88.0.", "203.0.113.1"},
	{TCP, "[::]:5000", "[2001:db8:1::9]:7", "fd88::", "2001:db8:1::1"},
	{UDP, "[::]:5000", "[2001:db8:1::9]:7", "fd88::", "2001:db8:1::1"},
}

// Boxes that send from the same port to the same place at the same time are kept
// apart, and one keeps its port.
func TestSourcePortsAreKeptWhereTheyCanBe(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, change := range map[string]func(*Network){
		"Masquerade": func(*Network) {},
		"SNAT":       func(n *Network) { n.Masquerade, n.SNAT = false, addrs("203.0.113.1", "2001:db8:1::1") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, two := network0(), network1()
			change(&one)
			change(&two)
			s := wire(t)
			s.gw = open(t, s.host)
			for _, n := range []Network{one, two} {
				if err := s.gw.AddNetwork(t.Context(), n); err != nil {
					t.Fatal(err)
				}
			}
			s.waitReady(t)
			tellPorts(t, s.outside)
			for _, w := range waysOut {
				var seen [3]netip.AddrPort
				var all sync.WaitGroup
				for i, ns := range []*netns.NS{s.box, s.sibling, s.other} {
					all.Go(func() { seen[i] = seenAs(t, ns, w.proto, w.from, w.to) })
				}
				all.Wait()
				kept := 0
				for i, a := range seen {
					if a.Port() == 5000 {
						kept++
					}
					if a.Addr().String() != w.saddr || a == seen[(i+1)%3] {
						t.Errorf("%v to %s: seen are %v", w.proto, w.to, seen)
					}
				}
				if kept != 1 {
					t.Errorf("%v to %s: %d of %v have kept the port", w.proto, w.to, kept, seen)
				}
			}
		})
	}
}

func TestRandomPortsOnRequest(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	random, fixed := network0(), network1()
	random.Random = true
	fixed.Random, fixed.Masquerade, fixed.SNAT = true, false, addrs("203.0.113.1", "2001:db8:1::1")
	s := newPublished(t, false, random, fixed)
	tellPorts(t, s.outside)
	for _, w := range waysOut {
		for i, ns := range []*netns.NS{s.box, s.other} {
			// One of 64512 ports is the same by chance.
			a, b := seenAs(t, ns, w.proto, w.from, w.to), seenAs(t, ns, w.proto, netip.AddrPortFrom(ap(w.from).Addr(), 5001).String(), w.to)
			if a.Port() == 5000 && b.Port() == 5001 || a.Addr().String() != w.saddr {
				t.Errorf("%v to %s from network %d: seen as %v and %v", w.proto, w.to, i, a, b)
			}
		}
	}
	random.Random = false
	if err := s.gw.SetNetwork(t.Context(), random); err != nil {
		t.Fatal(err)
	}
	if a := seenAs(t, s.sibling, UDP, "0.0.0.0:5002", "203.0.113.9:7"); a.Port() != 5002 {
		t.Errorf("switched off: seen as %v", a)
	}
}

// A published port is for its own box: no other box sends from it, because it would
// receive what a visitor sends to that port.
func TestNoOtherBoxSendsFromAPublishedPort(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	publishers := map[string]func(all netip.Addr, one netip.Addr, box netip.Addr) Port{
		"on all addresses": func(all, _, box netip.Addr) Port {
			return Port{Host: netip.AddrPortFrom(all, 5000), Box: netip.AddrPortFrom(box, 5000)}
		},
		"with another number in the box": func(all, _, box netip.Addr) Port {
			return Port{Host: netip.AddrPortFrom(all, 5000), Box: netip.AddrPortFrom(box, 5555)}
		},
		"on one address": func(_, one, box netip.Addr) Port {
			return Port{Host: netip.AddrPortFrom(one, 5000), Box: netip.AddrPortFrom(box, 5000)}
		},
		"a range on all addresses": func(all, _, box netip.Addr) Port {
			return Port{Host: netip.AddrPortFrom(all, 4990), HostLast: 5300, Box: netip.AddrPortFrom(box, 4990)}
		},
		"a range on one address": func(_, one, box netip.Addr) Port {
			return Port{Host: netip.AddrPortFrom(one, 4990), HostLast: 5010, Box: netip.AddrPortFrom(box, 4990)}
		},
		"a range that is shifted": func(_, one, box netip.Addr) Port {
			return Port{Host: netip.AddrPortFrom(one, 4990), HostLast: 5010, Box: netip.AddrPortFrom(box, 6990)}
		},
	}
	for i, name := range slices.Sorted(maps.Keys(publishers)) {
		if !testutil.Spread(i, 3) {
			continue
		}
		publish := publishers[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := wire(t)
			s.gw = openWith(t, s.host, Options{NoReserve: true}) // a program of the host has the port, too
			fixed := network1()
			fixed.Masquerade, fixed.SNAT = false, addrs("203.0.113.1", "2001:db8:1::1")
			var ports []Port
			for _, w := range waysOut {
				p := publish(ap(w.from).Addr(), netip.MustParseAddr(w.saddr), netip.MustParseAddr(w.box+"2"))
				p.Proto, p.Owner = w.proto, "web"
				ports = append(ports, p)
			}
			if err := s.gw.Sync(t.Context(), State{Networks: []Network{network0(), fixed}}); err != nil {
				t.Fatal(err)
			}
			if err := s.gw.Publish(t.Context(), ports...); err != nil {
				t.Fatal(err)
			}
			s.waitReady(t)
			pc := tellPorts(t, s.outside)
			for i, w := range waysOut {
				for who, ns := range map[string]*netns.NS{"sibling": s.sibling, "box of a network with SNAT": s.other, "host": s.host} {
					from := w.from
					if ns == s.host { // or it would choose another source
						from = netip.AddrPortFrom(netip.MustParseAddr(w.saddr), 5000).String()
					}
					if a := seenAs(t, ns, w.proto, from, w.to); a.Port() == 5000 || a.Addr().String() != w.saddr {
						t.Errorf("%v to %s: the %s is seen as %v", w.proto, w.to, who, a)
					}
				}
				// The visitor that all of them have sent to.
				if w.proto == UDP {
					at := listenAndAnswer(t, s.box, netip.AddrPortFrom(ports[i].Box.Addr(), ports[i].Box.Port()+5000-ports[i].Host.Port()).String())
					to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(w.saddr), 5000))
					if !until(func() bool { pc.WriteTo([]byte("visitor"), to); return at.has("visitor") }) {
						t.Errorf("to %v: nothing arrives at the box", to)
					}
				}
			}
			if err := s.gw.Sync(t.Context(), State{Networks: []Network{network0(), fixed}}); err != nil {
				t.Fatal(err)
			}
			for _, set := range []string{"own4", "own6", "owns4", "owns6", "spans"} {
				if out := testutil.Run(t, s.host, "nft", "list", "set", "inet", "boxwire", set); strings.Contains(out, "elements") {
					t.Errorf("left behind: %s", out)
				}
			}
		})
	}
}

// What a box sends from its own published port comes from there.
func TestABoxSendsFromItsOwnPublishedPort(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	random := network0()
	random.Random = true
	for name, network := range map[string]Network{"kept": network0(), "random": random} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := wire(t)
			s.gw = open(t, s.host)
			if err := s.gw.AddNetwork(t.Context(), network); err != nil {
				t.Fatal(err)
			}
			long := ranged(udp("[::]:7000", "[fd88::2]:7000", "rtp"), 7300)
			dns := udp("0.0.0.0:5000", "10.88.0.2:5000", "dns")
			if err := s.gw.Publish(t.Context(), dns, udp("[::]:5000", "[fd88::2]:5000", "dns"), long); err != nil {
				t.Fatal(err)
			}
			s.waitReady(t)
			tellPorts(t, s.outside)
			for from, to := range map[string]string{
				"10.88.0.2:5000": "203.0.113.9:7", "[fd88::2]:5000": "[2001:db8:1::9]:7", "[fd88::2]:7100": "[2001:db8:1::9]:7",
			} {
				if a := seenAs(t, s.box, UDP, from, to); a.Port() != ap(from).Port() {
					t.Errorf("from %s it is seen as %v", from, a)
				}
			}
			if err := s.gw.Unpublish(t.Context(), dns, long); err != nil {
				t.Fatal(err)
			}
			if out := testutil.Run(t, s.host, "nft", "list", "set", "inet", "boxwire", "own4"); strings.Contains(out, "elements") {
				t.Errorf("left behind: %s", out)
			}
		})
	}
}

func TestMSSIsWhatTheNetworkSays(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	fixed := network1()
	fixed.MSS = 1200
	s := newPublished(t, false, network0(), fixed)
	for _, addr := range []string{"198.51.100.9:0", "[2001:db8:2::9]:0"} {
		if got := segmentSize(t, s.other, s.beyond, addr); got != 1200 {
			t.Errorf("%s: the server may send segments of %d bytes, want 1200", addr, got)
		}
		if got := segmentSize(t, s.box, s.beyond, addr); got <= 1200 {
			t.Errorf("%s: another network's segments have %d bytes", addr, got)
		}
	}
	nets, err := s.gw.ListNetworks(t.Context())
	if err != nil || nets[1].MSS != 1200 || nets[0].MSS != 0 {
		t.Errorf("%+v, %v", nets, err)
	}
}

// Visitors whom the rules leave untranslated get to the socket that reserves a port.
// It lets nothing in, and they are refused, as where no program listens.
func TestVisitorsOfAReservedPortAreRefusedAtOnce(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.box, ":80")
	all, one := tcp("[::]:8080", "[fd88::2]:80", "web"), tcp("[2001:db8:1::1]:8081", "[fd88::2]:80", "web")
	dns, rng := udp("[::]:5300", "[fd88::2]:53", "dns"), ranged(tcp("[::]:9000", "[fd88::2]:9000", "rng"), 9010)
	four := []Port{tcp("203.0.113.1:8082", "10.88.0.2:80", "web"), udp("203.0.113.1:5302", "10.88.0.2:53", "dns")}
	if err := s.gw.Publish(t.Context(), append(four, all, one, dns, rng)...); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	refused := func(t *testing.T, ns *netns.NS, network, addr string, from net.Addr) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c, err := ns.DialWith(ctx, net.Dialer{LocalAddr: from}, network, addr)
		if err == nil && network == "udp" {
			c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err = c.Write([]byte("?")); err == nil {
				_, err = c.Read(make([]byte, 1))
			}
		}
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s %s: %v", network, addr, err)
		}
	}
	for _, c := range [][2]string{
		{"tcp", "[::1]:8080"}, {"tcp", "[::1]:8081"}, {"udp", "[::1]:5300"}, {"tcp", "[::1]:9005"},
		{"tcp", "127.0.0.1:8080"}, {"tcp", "127.0.0.1:8082"}, {"udp", "127.0.0.1:5302"}, {"udp", "127.0.0.1:5300"},
	} {
		refused(t, s.host, c[0], c[1], nil)
	}
	// With a proxy it is served, and without it refused again.
	p := proxied(t, s.gw, TCP, "[::1]:8080", "[fd88::2]:80")
	if got, err := ask(t, s.host, "[::1]:8080"); err != nil || got != "fd88::1" {
		t.Errorf("by a proxy: %q, %v", got, err)
	}
	p.Close()
	refused(t, s.host, "tcp", "[::1]:8080", nil)
	// Another link-local address's visitor, whom a box could not answer.
	ip(t, s.host, "addr add fe80::aa/64 dev up0 nodad")
	ip(t, s.outside, "addr add fe80::bb/64 dev wan0 nodad")
	to, from := netip.MustParseAddr("fe80::aa%wan0"), netip.MustParseAddr("fe80::bb%wan0")
	for _, c := range []struct {
		network string
		from    net.Addr
		port    uint16
	}{{"tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), 8080}, {"udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), 5300}} {
		refused(t, s.outside, c.network, netip.AddrPortFrom(to, c.port).String(), c.from)
	}
	for from, want := range map[*netns.NS]string{s.outside: "2001:db8:1::9", s.host: "2001:db8:1::1"} {
		if got, err := ask(t, from, "[2001:db8:1::1]:8080"); err != nil || got != want {
			t.Errorf("a visitor of the box: %q, %v, want %s", got, err, want)
		}
	}
}
