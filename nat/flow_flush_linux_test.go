package nat

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestLocalIsWhatTheKernelDeliversHere(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	testutil.Run(t, ns, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	testutil.Run(t, ns, "ip", "-6", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
	testutil.Run(t, ns, "ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo")
	testutil.Run(t, ns, "ip", "route", "add", "203.0.113.0/24", "dev", "lo")
	testutil.Run(t, ns, "ip", "route", "add", "blackhole", "203.0.113.1/32")
	testutil.Run(t, ns, "ip", "route", "add", "prohibit", "203.0.113.2/32")
	n := &NAT{ns: ns}
	// The kernel makes the route of an IPv6 address in its own time.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if strings.Contains(testutil.Run(t, ns, "ip", "-6", "route", "show", "table", "local"), "2001:db8::1 ") {
			break
		}
	}
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "192.0.2.1": true, "2001:db8::1": true, "198.51.100.7": true,
		"203.0.113.9": false, "203.0.113.1": false, "203.0.113.2": false, "192.0.2.2": false, "2001:db8::2": false,
	} {
		if got, err := n.isLocal(t.Context(), netip.MustParseAddr(addr)); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", addr, got, err, want)
		}
	}
}

// echo answers every UDP packet in ns with name and what the packet says.
func echo(t *testing.T, ns *netns.NS, addr, name string) {
	t.Helper()
	c, err := ns.ListenPacket(t.Context(), "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(append([]byte(name+" "), b[:n]...), from)
		}
	}()
}

// exchanges numbers the calls of exchange.
var exchanges atomic.Int64

// exchange sends on c until it hears a name, for at most the given time, and
// returns it. A refusal is none, and neither is an answer to what was sent before.
func exchange(t *testing.T, c net.Conn, within time.Duration) string {
	t.Helper()
	b := make([]byte, 64)
	question := strconv.FormatInt(exchanges.Add(1), 10)
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		c.Write([]byte(question)) // an earlier packet's refusal may come back here
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		for {
			n, err := c.Read(b)
			if name, to, _ := strings.Cut(string(b[:n]), " "); err == nil && to == question {
				return name
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
		}
	}
	return ""
}

// Conntrack would go on translating what began while the table was there, where
// another table translates, too, and the machine forwards.
func TestDeleteEndsTheFlowsOfItsPorts(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := wire(t)
	setSysctl(t, s.host, "ipv4/ip_forward", "1")
	testutil.Run(t, s.host, "nft", "table ip other { chain c { type nat hook prerouting priority 0; }; }")
	s.gw = open(t, s.host)
	if err := s.gw.Sync(t.Context(), State{Networks: []Network{network0()}, Ports: []Port{udp("0.0.0.0:5300", "10.88.0.2:53", "dns")}}); err != nil {
		t.Fatal(err)
	}
	echo(t, s.box, "10.88.0.2:53", "dns")
	c, err := s.outside.Dial(t.Context(), "udp", "203.0.113.1:5300")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := exchange(t, c, 10*time.Second); got != "dns" {
		t.Fatalf("published, the flow reaches %q", got)
	}
	if err := s.gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, c, 100*time.Millisecond); got != "" {
		t.Errorf("deleted, the flow reaches %q", got)
	}
}

// A UDP flow is one socket that keeps sending: while nothing is published, after
// its port is, after it leads to another box, and after it is unpublished
// (moby#8795, moby#44688).
func TestAUDPFlowFollowsItsPort(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for i, host := range []string{"0.0.0.0:5300", "203.0.113.1:5300", "[::]:5300", "[2001:db8:1::1]:5300"} {
		if !testutil.Spread(i, 2) {
			continue
		}
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			s := newTopology(t)
			addr, one, two := "203.0.113.1:5300", "10.88.0.2:53", "10.88.0.2:54"
			if netip.MustParseAddrPort(host).Addr().Is6() {
				addr, one, two = "[2001:db8:1::1]:5300", "[fd88::2]:53", "[fd88::2]:54"
			}
			echo(t, s.box, one, "one")
			echo(t, s.box, two, "two")
			c, err := s.outside.Dial(t.Context(), "udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			port := Port{Proto: UDP, Host: netip.MustParseAddrPort(host), Box: netip.MustParseAddrPort(one), Owner: "web"}
			heard := func(when, want string, within time.Duration) {
				t.Helper()
				if got := exchange(t, c, within); got != want {
					t.Errorf("%s the flow reaches %q, want %q", when, got, want)
				}
			}
			heard("before", "", 100*time.Millisecond)
			if err := s.gw.Publish(t.Context(), port); err != nil {
				t.Fatal(err)
			}
			heard("published,", "one", 10*time.Second)
			if err := s.gw.Unpublish(t.Context(), port); err != nil {
				t.Fatal(err)
			}
			heard("unpublished,", "", 100*time.Millisecond)
			port.Box = netip.MustParseAddrPort(two)
			if err := s.gw.Publish(t.Context(), port); err != nil {
				t.Fatal(err)
			}
			heard("published elsewhere,", "two", 10*time.Second)
		})
	}
}

// Who else translates destinations of IPv6 is known by the chains of nftables.
func TestTranslatesAlone(t *testing.T) {
	t.Parallel()
	for rules, want := range map[string]bool{
		"": true,
		"table ip o { chain c { type nat hook prerouting priority -100; }; }":                true,
		"table ip6 o { chain c { type filter hook prerouting priority -100; }; }":            true,
		"table ip6 o { chain c { type nat hook postrouting priority 100; }; }":               true,
		"table ip6 o { chain c { type nat hook prerouting priority -100; }; }":               false,
		"table ip6 boxwire { chain c { type nat hook prerouting priority -100; }; }":         false,
		"table inet o { chain c { type nat hook output priority -100; policy accept; }; }":   false,
		"table inet o { chain c { type nat hook postrouting priority 100; }; chain d { }; }": true,
	} {
		ns := netnstest.New(t)
		gw := open(t, ns)
		if rules != "" {
			testutil.Run(t, ns, "nft", rules)
		}
		if got, err := gw.translatesAlone(t.Context()); got != want || err != nil {
			t.Errorf("%s: %v, %v", rules, got, err)
		}
	}
	// A port whose flows may be known by its number alone is looked for among all flows where that
	// cannot be found out.
	gw := open(t, netnstest.New(t))
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for ctx, alone := range map[context.Context]bool{t.Context(): true, canceled: false} {
		if got := gw.targets(ctx, []Port{udp("[::]:53", "[fd88::2]:53", "dns")}, nil); len(got) != 1 || got[0].Alone != alone {
			t.Errorf("the targets are %v, want Alone %v", got, alone)
		}
	}
}

// A flow that another program has translated from the same number to the same number stays.
func TestUnpublishSparesWhatOthersTranslate(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	testutil.Run(t, s.host, "nft", "table inet other { chain c { type nat hook output priority -110; "+
		"ip daddr 192.0.2.77 udp dport 5300 dnat ip to 198.51.100.9:53; ip6 daddr 2001:db8:77::1 udp dport 5300 dnat ip6 to [fd88::2]:53; }; }")
	testutil.Run(t, s.host, "ip", "-6", "route", "add", "2001:db8:77::/64", "via", "fd88::2")
	testutil.Run(t, s.host, "ip", "route", "add", "192.0.2.77/32", "via", "10.88.0.2")
	echo(t, s.box, "[fd88::2]:53", "six")
	echo(t, s.box, "10.88.0.2:53", "four")
	ports := []Port{udp("0.0.0.0:5300", "10.88.0.2:53", "web"), udp("[::]:5300", "[fd88::2]:53", "web")}
	if err := s.gw.Publish(t.Context(), ports...); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[*netns.NS][]string{
		s.outside: {"203.0.113.1:5300", "[2001:db8:1::1]:5300"}, s.host: {"192.0.2.77:5300", "[2001:db8:77::1]:5300"},
	} {
		for _, addr := range to {
			c, err := from.Dial(t.Context(), "udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	tracked := func() (to []string) {
		t.Helper()
		all, err := s.gw.ListFlows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.Original.Dst.Port() == 5300 {
				to = append(to, f.Original.Dst.String())
			}
		}
		slices.Sort(to)
		return to
	}
	if got, want := tracked(), []string{"192.0.2.77:5300", "203.0.113.1:5300", "[2001:db8:1::1]:5300", "[2001:db8:77::1]:5300"}; !slices.Equal(got, want) {
		t.Fatalf("the flows are %v, want %v", got, want)
	}
	if err := s.gw.Unpublish(t.Context(), ports...); err != nil {
		t.Fatal(err)
	}
	if got, want := tracked(), []string{"192.0.2.77:5300", "[2001:db8:77::1]:5300"}; !slices.Equal(got, want) {
		t.Errorf("unpublished, the flows are %v, want %v", got, want)
	}
}

// A port on all addresses of both families ends in one call, whatever has come
// through it: no visitor, or visitors of one family. What a box has with the
// same port of another machine goes on.
func TestUnpublishEndsTheFlowsOfBothFamilies(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for name, visits := range map[string][]string{
		"nobody": nil,
		"IPv4":   {"203.0.113.1:5300"},
		"IPv6":   {"[2001:db8:1::1]:5300"},
		"both":   {"203.0.113.1:5300", "[2001:db8:1::1]:5300"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTopology(t)
			echo(t, s.box, "10.88.0.2:53", "four")
			echo(t, s.box, "[fd88::2]:53", "six")
			echo(t, s.beyond, "198.51.100.9:5300", "beyond")
			ports := []Port{udp("0.0.0.0:5300", "10.88.0.2:53", "web"), udp("[::]:5300", "[fd88::2]:53", "web")}
			if err := s.gw.Publish(t.Context(), ports...); err != nil {
				t.Fatal(err)
			}
			talk := func(from *netns.NS, addr string) net.Conn {
				t.Helper()
				c, err := from.Dial(t.Context(), "udp", addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				if got := exchange(t, c, 10*time.Second); got == "" {
					t.Fatalf("published, the flow to %s reaches nobody", addr)
				}
				return c
			}
			var visitors []net.Conn
			for _, addr := range visits {
				visitors = append(visitors, talk(s.outside, addr))
			}
			if visits != nil {
				talk(s.box, "198.51.100.9:5300")
			}
			flows := func() (through, past []Flow) {
				t.Helper()
				all, err := s.gw.ListFlows(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range all {
					f.Timeout = 0 // it runs
					switch {
					case f.Original.Dst.Port() != 5300:
					case f.Reply.Src.Port() == 53:
						through = append(through, f)
					default:
						past = append(past, f)
					}
				}
				return through, past
			}
			through, before := flows()
			if len(through) != len(visits) {
				t.Errorf("through the port are %v, want %d", through, len(visits))
			}
			if err := s.gw.Unpublish(t.Context(), ports...); err != nil {
				t.Fatal(err)
			}
			through, after := flows()
			if len(through) != 0 || !slices.Equal(before, after) {
				t.Errorf("unpublished, %v go through the port and %v past it, want none and %v", through, after, before)
			}
			for _, c := range visitors {
				if got := exchange(t, c, 100*time.Millisecond); got != "" {
					t.Errorf("unpublished, the flow to %v reaches %q", c.RemoteAddr(), got)
				}
			}
		})
	}
}
