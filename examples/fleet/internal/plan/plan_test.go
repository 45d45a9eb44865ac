package plan

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/route"
)

func prefixes(text string) []netip.Prefix {
	var all []netip.Prefix
	for s := range strings.FieldsSeq(text) {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func addrs(text string) []netip.Addr {
	var all []netip.Addr
	for s := range strings.FieldsSeq(text) {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func id(n int) state.ID { return state.ID{14: byte(n >> 8), 15: byte(n)} }

func key(n int) string { return base64.StdEncoding.EncodeToString(append(make([]byte, 31), byte(n))) }

// node is number n of a fleet: 10.100.n.0/24, fd99:0:0:n::/64.
func node(n int, endpoints string) state.Node {
	return state.Node{
		Version: 1, ID: id(n), Name: fmt.Sprint("n", n), Endpoints: addrs(endpoints), MTU: 1500, PublicKey: key(n),
		Prefixes: prefixes(fmt.Sprintf("10.100.%d.0/24 fd99:0:0:%x::/64", n, n)),
	}
}

func with(n state.Node, change func(*state.Node)) state.Node { change(&n); return n }

// snapshot has the nodes of a fleet of the mode.
func snapshot(m state.Mode, nodes ...state.Node) *state.Snapshot {
	c := state.DefaultConfig()
	c.Mode = m
	s := &state.Snapshot{Config: &c, Nodes: map[state.ID]state.Node{}, Claims: map[netip.Prefix]state.ID{}}
	for _, n := range nodes {
		s.Nodes[n.ID] = n
		for _, p := range n.Prefixes {
			s.Claims[p] = n.ID
		}
	}
	return s
}

// self is node 1, with eth0 in 192.0.2.0/24 and fd77::/64.
func self() Self {
	return Self{
		ID: id(1), Prefixes: node(1, "").Prefixes, Tunnel: 9,
		Underlay: []Underlay{{Index: 2, Name: "eth0", MTU: 1500, Addrs: prefixes("192.0.2.1/24 fd77::1/64")}},
	}
}

// bottom are the routes that every plan of self begins with.
const bottom = `
	unreachable 10.100.0.0/16 metric 4294967295
	unreachable fd99::/48 metric 4294967295
	unreachable 10.100.1.0/24 metric 4294967295
	unreachable fd99:0:0:1::/64 metric 4294967295`

func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// written is the plan's routes as ip-route(8) writes them.
func written(p Plan) []string {
	all := []string{}
	for _, r := range p.Routes {
		all = append(all, strings.ReplaceAll(strings.ReplaceAll(r.String(), " proto static", ""), " scope link", ""))
	}
	return all
}

func TestFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		mode    state.Mode
		self    func(*Self)
		nodes   []state.Node
		down    []int
		keep    string
		routes  string // behind those of the bottom
		skipped string
	}{
		{
			name: "tunnel", mode: state.Tunnel, nodes: []state.Node{node(2, "192.0.2.2 fd77::2")},
			routes: `10.100.2.0/24 encap ip id 7 dst 192.0.2.2 ttl 64 dev 9 src 10.100.1.1 mtu 1464
				fd99:0:0:2::/64 encap ip id 7 dst 192.0.2.2 ttl 64 dev 9 src fd99:0:0:1::1 mtu 1464`,
		},
		{
			name: "tunnel to an endpoint beyond routers, IPv6 first", mode: state.Tunnel, nodes: []state.Node{node(2, "2001:db8::2 203.0.113.2")},
			routes: `10.100.2.0/24 encap ip6 id 7 dst 2001:db8::2 ttl 64 csum dev 9 src 10.100.1.1 mtu 1444
				fd99:0:0:2::/64 encap ip6 id 7 dst 2001:db8::2 ttl 64 csum dev 9 src fd99:0:0:1::1 mtu 1444`,
		},
		{
			name: "tunnel from a node without IPv6", mode: state.Tunnel, nodes: []state.Node{node(2, "2001:db8::2 203.0.113.2")},
			self: func(s *Self) { s.Underlay[0].Addrs = prefixes("192.0.2.1/24 fe80::1/64") },
			routes: `10.100.2.0/24 encap ip id 7 dst 203.0.113.2 ttl 64 dev 9 src 10.100.1.1 mtu 1464
				fd99:0:0:2::/64 encap ip id 7 dst 203.0.113.2 ttl 64 dev 9 src fd99:0:0:1::1 mtu 1464`,
		},
		{
			name: "no endpoint of a family that the node has", mode: state.Tunnel, nodes: []state.Node{node(2, "2001:db8::2")},
			self: func(s *Self) { s.Underlay[0].Addrs = prefixes("192.0.2.1/24") },
			skipped: `n2 (00000000): 10.100.2.0/24: none of its endpoints [2001:db8::2] is of a family that this node has
				n2 (00000000): fd99:0:0:2::/64: none of its endpoints [2001:db8::2] is of a family that this node has`,
		},
		{
			name: "direct", mode: state.Direct, nodes: []state.Node{node(2, "192.0.2.2 fd77::2"), node(3, "203.0.113.3 fd77::3"), node(4, "192.0.2.4")},
			routes: `10.100.2.0/24 via 192.0.2.2 dev 2 src 10.100.1.1 mtu 1500
				fd99:0:0:2::/64 via fd77::2 dev 2 src fd99:0:0:1::1 mtu 1500
				10.100.3.0/24 via inet6 fd77::3 dev 2 src 10.100.1.1 mtu 1500
				fd99:0:0:3::/64 via fd77::3 dev 2 src fd99:0:0:1::1 mtu 1500
				10.100.4.0/24 via 192.0.2.4 dev 2 src 10.100.1.1 mtu 1500`,
			skipped: `n4 (00000000): fd99:0:0:4::/64: none of its endpoints [192.0.2.4] is on a link of this node and can be a gateway of the prefix`,
		},
		{
			name: "auto: on the link, on it by IPv4 only, beyond routers", mode: state.Auto,
			nodes: []state.Node{node(2, "192.0.2.2 fd77::2"), node(3, "192.0.2.3"), node(4, "203.0.113.4")},
			routes: `10.100.2.0/24 via 192.0.2.2 dev 2 src 10.100.1.1 mtu 1500
				fd99:0:0:2::/64 via fd77::2 dev 2 src fd99:0:0:1::1 mtu 1500
				10.100.3.0/24 via 192.0.2.3 dev 2 src 10.100.1.1 mtu 1500
				fd99:0:0:3::/64 encap ip id 7 dst 192.0.2.3 ttl 64 dev 9 src fd99:0:0:1::1 mtu 1464
				10.100.4.0/24 encap ip id 7 dst 203.0.113.4 ttl 64 dev 9 src 10.100.1.1 mtu 1464
				fd99:0:0:4::/64 encap ip id 7 dst 203.0.113.4 ttl 64 dev 9 src fd99:0:0:1::1 mtu 1464`,
		},
		{
			name: "wireguard", mode: state.WireGuard, nodes: []state.Node{node(2, "192.0.2.2"), node(3, "2001:db8::3")},
			routes: `10.100.2.0/24 dev 9 src 10.100.1.1 mtu 1440
				fd99:0:0:2::/64 dev 9 src fd99:0:0:1::1 mtu 1440
				10.100.3.0/24 dev 9 src 10.100.1.1 mtu 1420
				fd99:0:0:3::/64 dev 9 src fd99:0:0:1::1 mtu 1420`,
		},
		{
			name: "wireguard: keys", mode: state.WireGuard,
			nodes: []state.Node{
				node(1, "192.0.2.1"), node(2, "192.0.2.2"),
				with(node(3, "192.0.2.3"), func(n *state.Node) { n.PublicKey = "" }),
				with(node(4, "192.0.2.4"), func(n *state.Node) { n.PublicKey = key(2) }),
				with(node(5, "192.0.2.5"), func(n *state.Node) { n.PublicKey = key(1) }),
			},
			routes: `10.100.2.0/24 dev 9 src 10.100.1.1 mtu 1440
				fd99:0:0:2::/64 dev 9 src fd99:0:0:1::1 mtu 1440`,
			skipped: `n3 (00000000): it has no public key of WireGuard
				n4 (00000000): its public key is of n2 (00000000)
				n5 (00000000): its public key is of this node`,
		},
		{
			name: "down, also without a way", mode: state.Auto, nodes: []state.Node{node(2, "192.0.2.2"), node(3, "10.100.3.1")}, down: []int{2, 3},
			routes: `unreachable 10.100.2.0/24
				unreachable fd99:0:0:2::/64
				unreachable 10.100.3.0/24
				unreachable fd99:0:0:3::/64`,
		},
		{
			name: "down in wireguard", mode: state.WireGuard, nodes: []state.Node{node(2, "192.0.2.2")}, down: []int{2},
			routes: "unreachable 10.100.2.0/24\nunreachable fd99:0:0:2::/64",
		},
		{
			name: "MTU: the smaller of both, by the link that leads there", mode: state.Tunnel,
			self: func(s *Self) {
				s.Underlay = append(s.Underlay, Underlay{Index: 3, Name: "eth1", MTU: 9000, Addrs: prefixes("198.51.100.1/24")})
			},
			nodes: []state.Node{
				with(node(2, "198.51.100.2"), func(n *state.Node) { n.MTU = 9000 }),
				with(node(3, "198.51.100.3"), func(n *state.Node) { n.MTU = 1400 }),
				with(node(4, "203.0.113.4"), func(n *state.Node) { n.MTU = 9000 }),
				with(node(5, "203.0.113.5"), func(n *state.Node) { n.MTU = 1300 }),
			},
			routes: `10.100.2.0/24 encap ip id 7 dst 198.51.100.2 ttl 64 dev 9 src 10.100.1.1 mtu 8964
				fd99:0:0:2::/64 encap ip id 7 dst 198.51.100.2 ttl 64 dev 9 src fd99:0:0:1::1 mtu 8964
				10.100.3.0/24 encap ip id 7 dst 198.51.100.3 ttl 64 dev 9 src 10.100.1.1 mtu 1364
				fd99:0:0:3::/64 encap ip id 7 dst 198.51.100.3 ttl 64 dev 9 src fd99:0:0:1::1 mtu 1364
				10.100.4.0/24 encap ip id 7 dst 203.0.113.4 ttl 64 dev 9 src 10.100.1.1 mtu 1464
				fd99:0:0:4::/64 encap ip id 7 dst 203.0.113.4 ttl 64 dev 9 src fd99:0:0:1::1 mtu 1464
				10.100.5.0/24 encap ip id 7 dst 203.0.113.5 ttl 64 dev 9 src 10.100.1.1 mtu 1264`,
			skipped: `n5 (00000000): fd99:0:0:5::/64: packets to it can have 1264 bytes only, and 1280 are the least`,
		},
		{
			name: "prefixes of others, of this node, of no pool", mode: state.Tunnel,
			nodes: []state.Node{
				node(2, "192.0.2.2"),
				with(node(3, "192.0.2.3"), func(n *state.Node) { n.Prefixes = prefixes("10.100.2.0/24") }),
				with(node(4, "192.0.2.4"), func(n *state.Node) { n.Prefixes = prefixes("10.100.1.0/24") }),
				with(node(5, "192.0.2.5"), func(n *state.Node) { n.Prefixes = prefixes("10.9.5.0/24 fd99:0:0:5::/64") }),
				with(node(6, "192.0.2.6"), func(n *state.Node) { n.Prefixes = prefixes("10.100.0.0/23") }),
			},
			routes: `10.100.2.0/24 encap ip id 7 dst 192.0.2.2 ttl 64 dev 9 src 10.100.1.1 mtu 1464
				fd99:0:0:2::/64 encap ip id 7 dst 192.0.2.2 ttl 64 dev 9 src fd99:0:0:1::1 mtu 1464
				fd99:0:0:5::/64 encap ip id 7 dst 192.0.2.5 ttl 64 dev 9 src fd99:0:0:1::1 mtu 1464`,
			skipped: `n3 (00000000): 10.100.2.0/24: of n2 (00000000)
				n4 (00000000): 10.100.1.0/24: of this node
				n5 (00000000): 10.9.5.0/24: not a node's prefix of the fleet's pools
				n6 (00000000): 10.100.0.0/23: not a node's prefix of the fleet's pools`,
		},
		{
			name: "endpoints that cannot be", mode: state.Auto, nodes: []state.Node{
				with(node(2, "192.0.2.1"), func(n *state.Node) { n.Prefixes = n.Prefixes[:1] }),
				with(node(3, "10.100.3.1"), func(n *state.Node) { n.Prefixes = n.Prefixes[:1] }),
				with(node(4, "192.0.2.0"), func(n *state.Node) { n.Prefixes = n.Prefixes[:1] }),
				with(node(5, "192.0.2.255"), func(n *state.Node) { n.Prefixes = n.Prefixes[:1] }),
			},
			skipped: `n2 (00000000): 10.100.2.0/24: its endpoint 192.0.2.1 is this node's own address, on link eth0
				n3 (00000000): 10.100.3.0/24: its endpoint 10.100.3.1 is in the fleet's pool 10.100.0.0/16: the tunnel would lead into itself
				n4 (00000000): 10.100.4.0/24: its endpoint 192.0.2.0 is no host's address in 192.0.2.0/24, on link eth0
				n5 (00000000): 10.100.5.0/24: its endpoint 192.0.2.255 is no host's address in 192.0.2.0/24, on link eth0`,
		},
		{
			name: "an endpoint that cannot be does not hide the others", mode: state.Auto, nodes: []state.Node{
				with(node(2, "192.0.2.1 203.0.113.2"), func(n *state.Node) { n.Prefixes = n.Prefixes[:1] }),
				with(node(3, "192.0.2.255 192.0.2.3"), func(n *state.Node) { n.Prefixes = n.Prefixes[:1] }),
			},
			routes: `10.100.2.0/24 encap ip id 7 dst 203.0.113.2 ttl 64 dev 9 src 10.100.1.1 mtu 1464
				10.100.3.0/24 via 192.0.2.3 dev 2 src 10.100.1.1 mtu 1500`,
		},
		{
			name: "direct says what is wrong with the endpoint on the link", mode: state.Direct, nodes: []state.Node{
				with(node(2, "203.0.113.2 192.0.2.1"), func(n *state.Node) { n.Prefixes = n.Prefixes[:1] }),
			},
			skipped: `n2 (00000000): 10.100.2.0/24: its endpoint 192.0.2.1 is this node's own address, on link eth0`,
		},
		{
			name: "a node without a prefix of a family has no source address of it", mode: state.Tunnel,
			self:  func(s *Self) { s.Prefixes = s.Prefixes[1:] },
			nodes: []state.Node{with(node(2, "192.0.2.2"), func(n *state.Node) { n.Prefixes = n.Prefixes[:1] })},
			routes: `-unreachable 10.100.1.0/24 metric 4294967295
				10.100.2.0/24 encap ip id 7 dst 192.0.2.2 ttl 64 dev 9 mtu 1464`,
		},
		{
			name: "kept routes", mode: state.Tunnel, nodes: []state.Node{node(2, "192.0.2.2")},
			keep: `10.100.9.0/24 encap ip id 7 dst 192.0.2.9 ttl 64 dev 5 proto 201 src 10.100.1.1 mtu 1464
				unreachable 10.100.8.0/24 proto 201
				10.100.7.0/24 via 192.0.2.7 dev 2 proto 201
				10.100.6.0/24 via 198.51.100.6 dev 4 proto 201
				10.100.2.0/24 encap ip id 7 dst 192.0.2.99 ttl 64 dev 9 proto 201
				10.100.1.0/24 encap ip id 7 dst 192.0.2.98 ttl 64 dev 9 proto 201
				unreachable 10.100.0.0/16 proto 201 metric 4294967295`,
			routes: `10.100.2.0/24 encap ip id 7 dst 192.0.2.2 ttl 64 dev 9 src 10.100.1.1 mtu 1464
				fd99:0:0:2::/64 encap ip id 7 dst 192.0.2.2 ttl 64 dev 9 src fd99:0:0:1::1 mtu 1464
				10.100.7.0/24 via 192.0.2.7 dev 2
				unreachable 10.100.8.0/24
				10.100.9.0/24 encap ip id 7 dst 192.0.2.9 ttl 64 dev 9 src 10.100.1.1 mtu 1464`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, me := snapshot(c.mode, c.nodes...), self()
			if c.self != nil {
				c.self(&me)
			}
			down := map[state.ID]bool{}
			for _, n := range c.down {
				down[id(n)] = true
			}
			var keep []route.Route
			for _, line := range lines(c.keep) {
				r, err := route.Parse(line)
				if err != nil {
					t.Fatal(err)
				}
				keep = append(keep, r)
			}
			p := For(s, me, down, keep)
			want := lines(bottom)
			for _, line := range lines(c.routes) {
				if without, ok := strings.CutPrefix(line, "-"); ok {
					want = slices.DeleteFunc(want, func(l string) bool { return l == without })
				} else {
					want = append(want, line)
				}
			}
			if got := written(p); !slices.Equal(got, want) {
				t.Errorf("the routes are\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
			var skipped []string
			for _, s := range p.Skipped {
				skipped = append(skipped, s.String())
			}
			if want := lines(c.skipped); !slices.Equal(skipped, want) {
				t.Errorf("skipped is\n\t%s\nwant\n\t%s", strings.Join(skipped, "\n\t"), strings.Join(want, "\n\t"))
			}
			if !slices.Equal(p.Trusted, s.Config.Pools) {
				t.Errorf("trusted are %v", p.Trusted)
			}
			for range 20 { // maps are in another order each time
				if again := For(s, me, down, keep); !reflect.DeepEqual(again, p) {
					t.Fatalf("the same input gives another plan:\n%v\n%v", again, p)
				}
			}
		})
	}
}

func TestPeersOfWireGuard(t *testing.T) {
	t.Parallel()
	s := snapshot(state.WireGuard, node(3, "2001:db8::3"), node(2, "192.0.2.2"))
	p := For(s, self(), map[state.ID]bool{id(3): true}, []route.Route{{Dst: netip.MustParsePrefix("10.100.9.0/24"), Dev: 9}})
	want := []Peer{
		{id(2), [32]byte{31: 2}, netip.MustParseAddrPort("192.0.2.2:4790"), node(2, "").Prefixes},
		{id(3), [32]byte{31: 3}, netip.MustParseAddrPort("[2001:db8::3]:4790"), node(3, "").Prefixes}, // down, and stays a peer
	}
	if !reflect.DeepEqual(p.Peers, want) || !p.WireGuard {
		t.Errorf("the peers are %v, want %v", p.Peers, want)
	}
	if kept := prefixes("10.100.9.0/24"); !slices.Equal(p.Kept, kept) {
		t.Errorf("kept is %v, want %v", p.Kept, kept)
	}
	if p := For(snapshot(state.Tunnel, node(2, "192.0.2.2")), self(), nil, nil); p.Peers != nil || p.WireGuard {
		t.Errorf("mode tunnel has the peers %v", p.Peers)
	}
}

func TestWithoutAConfigThePlanIsOfNoFleet(t *testing.T) {
	t.Parallel()
	s := snapshot(state.Tunnel, node(2, "192.0.2.2"))
	s.Config = nil
	for _, s := range []*state.Snapshot{s, nil} {
		if p := For(s, self(), nil, nil); !reflect.DeepEqual(p, Plan{}) {
			t.Errorf("the plan is %v", p)
		}
	}
}

func TestAPrefixAsLargeAsThePoolIsCaughtOnce(t *testing.T) {
	t.Parallel()
	s := snapshot(state.Tunnel)
	s.Config.Pools, s.Config.Size4, s.Config.Size6 = prefixes("10.100.1.0/24"), 24, 0
	me := self()
	me.Prefixes = prefixes("10.100.1.0/24")
	if got := written(For(s, me, nil, nil)); !slices.Equal(got, []string{"unreachable 10.100.1.0/24 metric 4294967295"}) {
		t.Errorf("the routes are %q", got)
	}
}

func TestLinkMTU(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode  state.Mode
		addrs string
		want  int
	}{
		{state.Tunnel, "192.0.2.1/24 fd77::1/64", 1464},
		{state.Auto, "fd77::1/64", 1444},
		{state.WireGuard, "192.0.2.1/24", 1440},
		{state.WireGuard, "fd77::1/64", 1420},
		{state.Direct, "fd77::1/64", 1500},
		{state.Tunnel, "", 0},
		{state.Tunnel, "fe80::1/64", 0},
	} {
		if got := LinkMTU(c.mode, []Underlay{{MTU: 1500, Addrs: prefixes(c.addrs)}}); got != c.want {
			t.Errorf("%s by %q: %d, want %d", c.mode, c.addrs, got, c.want)
		}
	}
}

// thousand is a fleet of 1,001 nodes.
func thousand(m state.Mode) *state.Snapshot {
	var nodes []state.Node
	for i := range 1001 {
		n := node(0, fmt.Sprintf("203.0.%d.%d", 100+i>>8, i&255))
		n.ID, n.Name = id(i+1), fmt.Sprint("n", i+1)
		b := id(i + 1)
		n.PublicKey = base64.StdEncoding.EncodeToString(append(make([]byte, 16), b[:]...))
		n.Prefixes = prefixes(fmt.Sprintf("10.%d.%d.0/24 fd99:0:0:%x::/64", 100+i>>8, i&255, i))
		nodes = append(nodes, n)
	}
	s := snapshot(m, nodes...)
	s.Config.Pools = prefixes("10.96.0.0/11 fd99::/48")
	return s
}

func TestAThousandPeers(t *testing.T) {
	t.Parallel()
	for _, m := range []state.Mode{state.Tunnel, state.WireGuard} {
		me := self()
		me.Prefixes = thousand(m).Nodes[id(1)].Prefixes
		p := For(thousand(m), me, nil, nil)
		if len(p.Routes) != 2*1000+4 || len(p.Skipped) != 0 {
			t.Errorf("%s: %d routes, skipped %v", m, len(p.Routes), p.Skipped)
		}
		// One fleet gives nodes the same whatever the order in which they joined.
		if again := For(thousand(m), me, nil, nil); !reflect.DeepEqual(p, again) {
			t.Errorf("%s: the same input gives another plan", m)
		}
	}
}

func BenchmarkFor(b *testing.B) {
	for _, m := range []state.Mode{state.Tunnel, state.Auto, state.WireGuard} {
		b.Run(string(m), func(b *testing.B) {
			s, me := thousand(m), self()
			me.Prefixes = s.Nodes[id(1)].Prefixes
			b.ReportAllocs()
			for b.Loop() {
				For(s, me, nil, nil)
			}
		})
	}
}
