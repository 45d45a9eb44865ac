package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// explainTest is a topology with ports that answer, and what is asked about them.
type explainTest struct {
	topology
	t     *testing.T
	port  Port
	hints Hints
}

// explain returns the kinds of what Explain finds.
func (i *explainTest) explain() (Causes, []CauseKind) {
	i.t.Helper()
	causes, err := i.gw.Explain(i.t.Context(), i.port, i.hints)
	if err != nil {
		i.t.Fatal(err)
	}
	var kinds []CauseKind
	for _, c := range causes {
		kinds = append(kinds, c.Kind)
		if c.Subject == "" || !strings.HasSuffix(c.Text, ".") {
			i.t.Errorf("%+v", c)
		}
	}
	return causes, kinds
}

func (i *explainTest) nft(lines ...string) func() {
	return func() {
		for _, l := range lines {
			testutil.Run(i.t, i.host, "nft", l)
		}
	}
}

func (i *explainTest) ip(lines string) func() { return func() { ip(i.t, i.host, lines) } }

func (i *explainTest) sysctl(key, value string) func() {
	return func() {
		if err := i.host.SetSysctl(context.WithoutCancel(i.t.Context()), key, value); err != nil {
			i.t.Fatal(err)
		}
	}
}

func (i *explainTest) do(fn func() error) func() {
	return func() {
		if err := fn(); err != nil {
			i.t.Fatal(err)
		}
	}
}

// Each cause is made as it comes about in life, named, repaired, and gone.
func TestExplainNamesEachCause(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	web, local := tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("127.0.0.1:9090", "10.88.0.2:80", "web")
	web6 := tcp("[::]:8080", "[fd88::2]:80", "web")
	dns, gone := tcp("0.0.0.0:5300", "10.88.0.2:53", "dns"), tcp("0.0.0.0:8077", "10.88.0.77:80", "gone")
	dns.Proto = UDP
	state := State{Networks: []Network{network0()}, Ports: []Port{web, local, web6, dns, gone}}
	type faultCase struct {
		name string
		port Port
		kind CauseKind
		subj string // a part of the subject
		make func(i *explainTest) (make, repair func())
	}
	sync := func(i *explainTest) func() {
		return i.do(func() error { return i.gw.Sync(i.t.Context(), state) })
	}
	for turn, c := range []faultCase{
		{"the table is deleted", web, CauseTableMissing, "inet boxwire", func(i *explainTest) (func(), func()) {
			return i.nft("delete table inet boxwire"), sync(i)
		}},
		{"a chain is flushed", web, CauseTableDamaged, "inet boxwire", func(i *explainTest) (func(), func()) {
			return i.nft("flush chain inet boxwire to_box"), sync(i)
		}},
		{"the port is unpublished", web, CauseNotPublished, "8080", func(i *explainTest) (func(), func()) {
			return i.do(func() error { return i.gw.Unpublish(i.t.Context(), web) }), sync(i)
		}},
		{"the port leads to another box", web, CauseLeadsElsewhere, "10.88.0.2:80", func(i *explainTest) (func(), func()) {
			return func() { i.port.Box = netip.MustParseAddrPort("10.88.0.3:80") }, func() { i.port = web }
		}},
		{"the address is not the host's", tcp("203.0.113.5:8080", "10.88.0.2:80", "web"), CauseAddressNotLocal, "203.0.113.5", func(i *explainTest) (func(), func()) {
			return func() {}, i.ip("addr add 203.0.113.5/24 dev up0")
		}},
		{"a forward chain with the policy drop", web, CauseForeignDrop, "policy of chain ip filter FORWARD", func(i *explainTest) (func(), func()) {
			return i.nft("table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"), i.nft("delete table ip filter")
		}},
		{"the same, accepted by DOCKER-USER", web, CauseForeignDrop, "FORWARD", func(i *explainTest) (func(), func()) {
			i.t.Cleanup(i.nft("delete table ip filter"))
			return i.nft(`table ip filter { chain DOCKER-USER { return; }; chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; ct state established,related accept; iifname "docker0" accept; }; }`),
				i.nft(`insert rule ip filter DOCKER-USER oifname "br0" accept`)
		}},
		{"a rule of firewalld's kind", web, CauseForeignDrop, "chain inet firewalld filter_FORWARD", func(i *explainTest) (func(), func()) {
			i.t.Cleanup(i.nft("delete table inet firewalld"))
			return i.nft("table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state established,related accept; reject with icmpx admin-prohibited; }; }"),
				i.nft("insert rule inet firewalld filter_FORWARD ct status dnat accept")
		}},
		{"a drop before the translation", web, CauseForeignDrop, "chain inet raw pre", func(i *explainTest) (func(), func()) {
			return i.nft("table inet raw { chain pre { type filter hook prerouting priority -300; policy accept; tcp dport 8080 drop; }; }"), i.nft("delete table inet raw")
		}},
		{"a drop on the way of local visitors", local, CauseForeignDrop, "chain inet f out", func(i *explainTest) (func(), func()) {
			return i.nft("table inet f { chain out { type filter hook output priority 0; policy accept; ip daddr 10.88.0.2 tcp dport 80 drop; }; }"), i.nft("delete table inet f")
		}},
		{"a drop of IPv6", web6, CauseForeignDrop, "chain ip6 filter FORWARD", func(i *explainTest) (func(), func()) {
			return i.nft("table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"), i.nft("delete table ip6 filter")
		}},
		{"another table's DNAT", web, CauseForeignDNAT, "chain ip nat PREROUTING", func(i *explainTest) (func(), func()) {
			return i.nft("table ip nat { chain PREROUTING { type nat hook prerouting priority -110; tcp dport 8080 dnat to 10.88.0.3; }; }"), i.nft("delete table ip nat")
		}},
		{"a visitor behind a box", web, CauseSource, "network br0", func(i *explainTest) (func(), func()) {
			i.ip("route add 198.18.0.0/15 via 10.88.0.3")()
			behind := network0()
			behind.Behind = prefixes("198.18.0.0/15")
			return func() { i.hints.From = netip.MustParseAddr("198.18.0.9") },
				i.do(func() error { return i.gw.SetNetwork(i.t.Context(), behind) })
		}},
		{"a visitor behind a box over IPv6", web6, CauseSource, "network br0", func(i *explainTest) (func(), func()) {
			i.ip("route add 2001:db8:77::/64 via fd88::3")()
			behind := network0()
			behind.Behind = prefixes("2001:db8:77::/64")
			return func() { i.hints.From = netip.MustParseAddr("2001:db8:77::9") },
				i.do(func() error { return i.gw.SetNetwork(i.t.Context(), behind) })
		}},
		{"a visitor with a box's address", web, CauseSource, "network br0", func(i *explainTest) (func(), func()) {
			i.ip("route add 10.88.0.9 via 203.0.113.9")()
			return func() { i.hints.From = netip.MustParseAddr("10.88.0.9") }, i.ip("route del 10.88.0.9")
		}},
		{"a box on two networks", web, CauseSource, "address 10.88.0.2", func(i *explainTest) (func(), func()) {
			return func() {
					i.ip(fmt.Sprintf("link add two0 type veth peer name eth1 netns %d\nlink set two0 master br1 up", standIn(i.t, i.box)))()
					ip(i.t, i.box, "link set eth1 up\naddr add 10.89.0.9/16 dev eth1\nroute replace default via 10.89.0.1")
				}, func() {
					ip(i.t, i.box, "route add default via 10.88.0.1 table 88\nrule add from 10.88.0.2 table 88")
				}
		}},
		{"a trusted visitor comes in by the network's link", web, CauseSource, "br0", func(i *explainTest) (func(), func()) {
			i.hints.From = netip.MustParseAddr("10.88.7.9")
			return i.do(func() error {
				n := network0()
				n.Trusted = prefixes("10.88.7.0/24", "198.51.100.0/24")
				return i.gw.SetNetwork(i.t.Context(), n)
			}), i.ip("route add 10.88.7.0/24 via 198.51.100.9")
		}},
		{"a strict reverse path", web, CauseReversePath, "up0", func(i *explainTest) (func(), func()) {
			i.hints.From = netip.MustParseAddr("203.0.113.9")
			i.ip("route add 203.0.113.9/32 via 198.51.100.9")()
			return i.sysctl("net.ipv4.conf.up0.rp_filter", "1"), func() {
				i.sysctl("net.ipv4.conf.up0.rp_filter", "2")()
				i.t.Cleanup(i.ip("route del 203.0.113.9/32 via 198.51.100.9"))
			}
		}},
		{"a flow older than the mapping", dns, CauseStaleFlow, "5300", func(i *explainTest) (func(), func()) {
			return func() {
					i.nft("delete element inet boxwire any4 { udp . 5300 }")()
					c, err := i.outside.Dial(i.t.Context(), "udp", "203.0.113.1:5300")
					if err != nil {
						i.t.Fatal(err)
					}
					defer c.Close()
					exchange(i.t, c, 100*time.Millisecond)
					i.nft(`add element inet boxwire any4 { udp . 5300 comment "dns" : 10.88.0.2 . 53 }`)()
				}, i.do(func() error {
					return errors.Join(i.gw.Unpublish(i.t.Context(), dns), i.gw.Publish(i.t.Context(), dns))
				})
		}},
		{"forwarding is off", web, CauseForwardingOff, "br0", func(i *explainTest) (func(), func()) {
			return i.sysctl("net.ipv4.conf.br0.forwarding", "0"), sync(i)
		}},
		{"IPv6 forwarding is off", web6, CauseForwardingOff, "br0", func(i *explainTest) (func(), func()) {
			return func() {
				for _, key := range []string{"net.ipv6.conf.br0.force_forwarding", "net.ipv6.conf.all.forwarding"} {
					if err := i.host.SetSysctl(i.t.Context(), key, "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
						i.t.Fatal(err)
					}
				}
			}, sync(i)
		}},
		{"route_localnet is off", local, CauseLocalnetOff, "br0", func(i *explainTest) (func(), func()) {
			return i.sysctl("net.ipv4.conf.br0.route_localnet", "0"), sync(i)
		}},
		{"the host has no address of the subnet", web, CauseNoRoute, "10.88.0.2", func(i *explainTest) (func(), func()) {
			return i.ip("addr del 10.88.0.1/16 dev br0"), i.ip("addr add 10.88.0.1/16 dev br0")
		}},
		{"the network was removed", web, CauseNoNetwork, "br0", func(i *explainTest) (func(), func()) {
			return i.do(func() error { return i.gw.DeleteNetwork(i.t.Context(), "br0") }), sync(i)
		}},
		{"the bridge is down", web, CauseLinkDown, "br0", func(i *explainTest) (func(), func()) {
			return i.ip("link set br0 down"), i.ip("link set br0 up\naddr add fd88::1/64 dev br0 nodad")
		}},
		{"the bridge has no carrier", web, CauseLinkDown, "br0", func(i *explainTest) (func(), func()) {
			return i.ip("link set box0 down\nlink set sib0 down"), i.ip("link set box0 up\nlink set sib0 up")
		}},
		{"no link has the box's address", gone, CauseNeighbourFailed, "10.88.0.77", func(i *explainTest) (func(), func()) {
			i.hints = Hints{}
			return func() {
					c, err := i.host.Dial(i.t.Context(), "udp", "10.88.0.77:9")
					if err != nil {
						i.t.Fatal(err)
					}
					defer c.Close()
					c.Write([]byte("who has 10.88.0.77?"))
				}, func() {
					ip(i.t, i.box, "addr add 10.88.0.77/16 dev eth0")
					testutil.Run(i.t, i.host, "ip", "neigh", "flush", "all")
				}
		}},
		{"bridged packets pass the firewall and ports are isolated", web, CauseBridgeFilter, "box0", func(i *explainTest) (func(), func()) {
			if _, err := i.host.Sysctl(i.t.Context(), "net.bridge.bridge-nf-call-iptables"); err != nil {
				i.t.Skipf("needs br_netfilter: %v", err)
			}
			i.sysctl("net.bridge.bridge-nf-call-iptables", "1")()
			i.t.Cleanup(i.sysctl("net.bridge.bridge-nf-call-iptables", "0"))
			return i.ip("link set box0 type bridge_slave isolated on"), i.ip("link set box0 type bridge_slave isolated off")
		}},
		{"no listener", web, CauseNoListener, "10.88.0.2:80", func(i *explainTest) (func(), func()) {
			i.hints.Box = i.sibling // where no program does
			return func() {}, func() { serve(i.t, i.sibling, ":80") }
		}},
		{"the program listens on loopback only", web, CauseNoListener, "10.88.0.2:80", func(i *explainTest) (func(), func()) {
			i.hints.Box = i.beyond
			serve(i.t, i.beyond, "127.0.0.1:80")
			ip(i.t, i.beyond, "addr add 10.88.0.2/32 dev lo")
			return func() {}, func() { serve(i.t, i.beyond, "10.88.0.2:80") }
		}},
	} {
		if !testutil.Spread(turn, 4) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := &explainTest{topology: wire(t), t: t, port: c.port}
			i.gw, i.hints = open(t, i.host), Hints{Box: i.box}
			serve(t, i.box, ":80")
			echo(t, i.box, ":53", "dns")
			sync(i)()
			makeIt, repair := c.make(i)
			if c.kind != CauseAddressNotLocal && c.kind != CauseNoListener {
				var kinds []CauseKind
				if !until(func() bool { // a carrier takes a moment to come
					_, kinds = i.explain()
					return !slices.Contains(kinds, c.kind)
				}) {
					t.Fatalf("before: %v", kinds)
				}
			}
			makeIt()
			before := testutil.Run(t, i.host, "nft", "-s", "list", "ruleset")
			causes, kinds := i.explain()
			at := slices.Index(kinds, c.kind)
			if at < 0 || !strings.Contains(causes[at].Subject, c.subj) {
				t.Errorf("%v: %v, want %q about %q", i.port, kinds, c.kind, c.subj)
			} else {
				t.Log(causes[at])
			}
			if after := testutil.Run(t, i.host, "nft", "-s", "list", "ruleset"); after != before {
				t.Errorf("Explain changed the ruleset:\n%s\nwas\n%s", after, before)
			}
			repair()
			for deadline := time.Now().Add(10 * time.Second); ; { // a carrier takes a moment to come back
				causes, kinds := i.explain()
				if !slices.Contains(kinds, c.kind) {
					break
				}
				if time.Now().After(deadline) {
					t.Errorf("repaired, but: %v", causes)
					break
				}
			}
		})
	}
}

// What is in order has no cause, and what the text says of it is so.
func TestExplainFindsNothingWhereAllIsWell(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.box, ":80")
	ports := []Port{tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web"), tcp("127.0.0.1:9090", "10.88.0.2:80", "web")}
	if err := s.gw.Publish(t.Context(), ports...); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	for addr, from := range map[string]*netns.NS{"203.0.113.1:8080": s.outside, "[2001:db8:1::1]:8080": s.outside, "127.0.0.1:9090": s.host} {
		if _, err := ask(t, from, addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		// As a visitor names it: address and port only.
		causes, err := s.gw.Explain(t.Context(), Port{Proto: TCP, Host: netip.MustParseAddrPort(addr)}, Hints{Box: s.box})
		if err != nil || len(causes) != 0 || !strings.Contains(causes.String(), "nothing") {
			t.Errorf("%s: %v, %v", addr, causes, err)
		}
	}
}

func TestExplainRefusesWhatIsNoPort(t *testing.T) {
	t.Parallel()
	s := &NAT{}
	four := netip.MustParseAddrPort("0.0.0.0:80")
	for name, c := range map[string]struct {
		port  Port
		hints Hints
	}{
		"no protocol":      {Port{Host: four}, Hints{}},
		"no port":          {Port{Proto: TCP, Host: netip.MustParseAddrPort("0.0.0.0:0")}, Hints{}},
		"another's family": {Port{Proto: TCP, Host: four}, Hints{From: netip.IPv6LinkLocalAllNodes()}},
		"families":         {Port{Proto: TCP, Host: four, Box: netip.MustParseAddrPort("[fd88::2]:80")}, Hints{}},
	} {
		if _, err := s.Explain(t.Context(), c.port, c.hints); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
