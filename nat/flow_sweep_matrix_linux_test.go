package nat

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// A talk is a flow that goes on: a socket sends again and again, and each answer
// has the address that the other side sees.
type talk struct {
	kind, name string
	proto      Proto
	v6         bool
	net.Conn
	answers *bufio.Reader
	id      uint32 // of its entry in the conntrack table
}

// talkers answers every line that comes to a port of ns, over TCP and UDP, with the
// asker's address and the line.
func talkers(t *testing.T, ns *netns.NS, port string) {
	t.Helper()
	ln, err := ns.Listen(t.Context(), "tcp", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := ns.ListenPacket(t.Context(), "udp", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var visitors []net.Conn
	t.Cleanup(func() {
		ln.Close()
		pc.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range visitors {
			c.Close()
		}
	})
	seen := func(a net.Addr) string { return netip.MustParseAddrPort(a.String()).Addr().Unmap().String() }
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			visitors = append(visitors, c)
			mu.Unlock()
			go func() {
				for lines := bufio.NewScanner(c); lines.Scan(); {
					fmt.Fprintln(c, seen(c.RemoteAddr()), lines.Text())
				}
			}()
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			pc.WriteTo(append([]byte(seen(from)+" "), b[:n]...), from)
		}
	}()
}

// hears asks until there is an answer, for at most the given time, and returns the
// address that the other side sees.
func (k *talk) hears(within time.Duration) string {
	question := strconv.FormatInt(exchanges.Add(1), 10)
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		if _, err := fmt.Fprintln(k, question); err != nil && k.proto == TCP {
			return "" // it is dead
		}
		k.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		for {
			line, err := k.answers.ReadString('\n')
			if addr, to, _ := strings.Cut(strings.TrimSpace(line), " "); err == nil && to == question {
				k.acknowledge()
				return addr
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil && k.proto == TCP {
				return ""
			}
		}
	}
	return ""
}

// acknowledge sends the acknowledgement that TCP delays. Without it the other side sends its answer again
// later, which may begin a flow of its own in the other direction.
func (k *talk) acknowledge() {
	if c, ok := k.Conn.(*net.TCPConn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
		}
	}
}

// sweeping is a topology with flows of every kind.
type sweeping struct {
	topology
	t     *testing.T
	talks []*talk
}

// kinds are the kinds of flows: who begins them, and to which address and port.
var talkKinds = []struct {
	kind string
	from func(s topology) *netns.NS
	to   [2]string // IPv4, IPv6
}{
	{"out", func(s topology) *netns.NS { return s.box }, [2]string{"203.0.113.9:7000", "[2001:db8:1::9]:7000"}},
	{"host", func(s topology) *netns.NS { return s.box }, [2]string{"10.88.0.1:7000", "[fd88::1]:7000"}},
	{"visit", func(s topology) *netns.NS { return s.outside }, [2]string{"203.0.113.1:8080", "[2001:db8:1::1]:8080"}},
	{"direct", func(s topology) *netns.NS { return s.outside }, [2]string{"10.88.0.2:7000", "[fd88::2]:7000"}},
	{"cross", func(s topology) *netns.NS { return s.box }, [2]string{"10.89.0.2:7000", "[fd89::2]:7000"}},
	{"sibling", func(s topology) *netns.NS { return s.box }, [2]string{"10.88.0.3:7000", "[fd88::3]:7000"}},
	{"far", func(s topology) *netns.NS { return s.outside }, [2]string{"203.0.113.1:9090", "[2001:db8:1::1]:9090"}},
	{"hairpin", func(s topology) *netns.NS { return s.sibling }, [2]string{"203.0.113.1:8080", "[2001:db8:1::1]:8080"}},
}

// begin begins flows of the kinds, over both protocols and families.
func (s *sweeping) begin(kinds ...string) {
	s.t.Helper()
	for _, k := range s.talks {
		k.Close()
	}
	s.talks = nil
	for _, kind := range kinds {
		for _, x := range talkKinds {
			if x.kind != kind {
				continue
			}
			for i, addr := range x.to {
				for _, proto := range []Proto{TCP, UDP} {
					c, err := x.from(s.topology).Dial(s.t.Context(), proto.String(), addr)
					if err != nil {
						s.t.Fatalf("%s over %v to %s: %v", kind, proto, addr, err)
					}
					s.t.Cleanup(func() { c.Close() })
					k := &talk{kind: kind, name: fmt.Sprintf("%s over %v to %s", kind, proto, addr), proto: proto, v6: i == 1, Conn: c, answers: bufio.NewReader(c)}
					if k.hears(10*time.Second) == "" {
						s.t.Fatalf("%s is not answered before", k.name)
					}
					s.talks = append(s.talks, k)
				}
			}
		}
	}
	ids := s.entries()
	for _, k := range s.talks {
		if k.id = ids[k]; k.id == 0 {
			s.t.Fatalf("%s is not tracked", k.name)
		}
	}
}

// entries are the ids of the flows' entries in the conntrack table, as one look shows
// them: 0 for none.
func (s *sweeping) entries() map[*talk]uint32 {
	s.t.Helper()
	type end struct {
		proto    uint8
		src, dst netip.AddrPort
	}
	by := make(map[end]*talk)
	for _, k := range s.talks {
		by[end{uint8(k.proto), netip.MustParseAddrPort(k.LocalAddr().String()), netip.MustParseAddrPort(k.RemoteAddr().String())}] = k
	}
	c, err := nsconn.Shared(s.host, unix.NETLINK_NETFILTER)
	if err != nil {
		s.t.Fatal(err)
	}
	ids := make(map[*talk]uint32)
	_, err = ct.New(c).List(s.t.Context(), func(f *ct.Flow) bool {
		if k := by[end{f.Orig.Proto, f.Orig.Src, f.Orig.Dst}]; k != nil {
			ids[k] = f.ID
		}
		return false
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return ids
}

// An outcome is what becomes of the flows of a kind: they go on, or they end. Those of
// UDP begin again with the next packet, and are seen from the address given for each
// family, or reach no host.
type outcome struct {
	kind    string
	goesOn  bool
	address [2]string // after the end, of UDP
}

func goOn(kinds ...string) (all []outcome) {
	for _, k := range kinds {
		all = append(all, outcome{kind: k, goesOn: true})
	}
	return all
}

func ends(kind string, address ...string) []outcome {
	o := outcome{kind: kind}
	copy(o.address[:], address)
	return []outcome{o}
}

// check compares what has become of the flows.
func (s *sweeping) check(when string, outcomes ...[]outcome) {
	s.t.Helper()
	want := make(map[string]outcome)
	for _, o := range slices.Concat(outcomes...) {
		want[o.kind] = o
	}
	ids := s.entries()
	for _, k := range s.talks {
		o := want[k.kind]
		if same := ids[k] == k.id; same != o.goesOn {
			s.t.Errorf("%s: %s goes on: %v, want %v", when, k.name, same, o.goesOn)
			continue
		}
		address := o.address[0]
		if k.v6 {
			address = o.address[1]
		}
		switch {
		case o.goesOn:
			if k.hears(10*time.Second) == "" {
				s.t.Errorf("%s: %s is not answered any more", when, k.name)
			}
		case address == "" || k.proto == TCP:
			if got := k.hears(100 * time.Millisecond); got != "" {
				s.t.Errorf("%s: %s is seen from %s, want nothing", when, k.name, got)
			}
		default:
			if got := k.hears(10 * time.Second); got != address {
				s.t.Errorf("%s: %s is seen from %q, want %s", when, k.name, got, address)
			}
		}
	}
	ids = s.entries()
	for _, k := range s.talks {
		if want[k.kind].goesOn && ids[k] != k.id {
			s.t.Errorf("%s: %s has begun again", when, k.name)
		}
	}
}

// newSweeping is a topology with a table in it, and all that the flows need.
func newSweeping(t *testing.T) *sweeping {
	t.Helper()
	s := &sweeping{topology: wire(t), t: t}
	ip(t, s.host, "addr add 203.0.113.5/24 dev up0")
	ip(t, s.beyond, "addr add 2001:db8:2::7:9/64 dev wan0 nodad")
	s.gw = open(t, s.host)
	for _, ns := range []*netns.NS{s.host, s.box, s.sibling, s.other, s.outside, s.beyond} {
		talkers(t, ns, "7000")
	}
	return s
}

// the published ports of the topology.
func sweptPorts(box string) (ports []Port) {
	for _, proto := range []Proto{TCP, UDP} {
		for _, addr := range [][2]string{{"0.0.0.0:8080", "10.88.0." + box + ":7000"}, {"[::]:8080", "[fd88::" + box + "]:7000"}} {
			p := tcp(addr[0], addr[1], "web")
			p.Proto = proto
			ports = append(ports, p)
		}
	}
	return ports
}

// farPorts lead to beyond, as a box of another host. Its IPv6 address differs from that of outside in more than the sixth byte, which
// some kernels ignore.
func farPorts() (ports []Port) {
	for _, proto := range []Proto{TCP, UDP} {
		ports = append(ports, Port{Proto: proto, Host: ap("0.0.0.0:9090"), Box: ap("198.51.100.9:7000"), Owner: "far"},
			Port{Proto: proto, Host: ap("[::]:9090"), Box: ap("[2001:db8:2::7:9]:7000"), Owner: "far"})
	}
	return ports
}

func boxPinholes() (all []Pinhole) {
	for _, proto := range []Proto{TCP, UDP} {
		for _, box := range []string{"10.88.0.2:7000", "[fd88::2]:7000"} {
			all = append(all, Pinhole{Proto: proto, Box: ap(box), Owner: "web"})
		}
	}
	return all
}

// After a change of a network, its flows are those that it would have let begin, and
// the others go on.
func TestAChangeOfANetworkEndsWhatItForbidsAndNothingElse(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	network := func(change func(*Network)) Network {
		n := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}
		if change != nil {
			change(&n)
		}
		return n
	}
	routed := network(nil)
	hidden := network(func(n *Network) { n.Masquerade = true })
	internal := network(func(n *Network) { n.Internal = true })
	isolated := network(func(n *Network) { n.Isolated = true })
	strict := network(func(n *Network) { n.Masquerade, n.Strict = true, true })
	trusted := network(func(n *Network) { n.Masquerade, n.Trusted = true, prefixes("203.0.113.0/24", "2001:db8:1::/64") })
	visited := func(addr ...string) Network {
		return network(func(n *Network) {
			n.Masquerade, n.Trusted, n.VisitorSNAT = true, prefixes("198.51.100.0/24", "2001:db8:2::7:0/112"), addrs(addr...)
		})
	}
	visitedAndClamped := visited("198.51.100.1", "2001:db8:2::1")
	visitedAndClamped.MSS = 1200
	linked := network(func(n *Network) { n.AllowTo = []string{"br1"} })
	opened := network(func(n *Network) { n.Pinholes = boxPinholes() })
	clamped := network(func(n *Network) { n.ClampMSS, n.Masquerade = true, true })
	fixed := func(addr ...string) Network {
		return network(func(n *Network) { n.SNAT = addrs(addr...) })
	}
	const own4, own6, uplink4, uplink6 = "10.88.0.2", "fd88::2", "203.0.113.1", "2001:db8:1::1"
	verbs := []struct {
		name   string
		change func(t *testing.T, s *sweeping, n Network, ports []Port) error
	}{
		{"SetNetwork", func(t *testing.T, s *sweeping, n Network, _ []Port) error { return s.gw.SetNetwork(t.Context(), n) }},
		{"SetNetwork of another program", func(t *testing.T, s *sweeping, n Network, _ []Port) error {
			return open(t, another(t, s.host)).SetNetwork(t.Context(), n)
		}},
		{"Sync", func(t *testing.T, s *sweeping, n Network, ports []Port) error {
			return s.gw.Sync(t.Context(), State{Networks: []Network{n, network1()}, Ports: ports})
		}},
	}
	for turn, v := range verbs {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := newSweeping(t)
			bridgeNF(t, s.host, true)
			ports := slices.Concat(sweptPorts("2"), farPorts())
			for i, c := range []struct {
				name       string
				before, to Network
				outcomes   [][]outcome
			}{
				{"nothing", hidden, hidden, [][]outcome{goOn("out", "host", "visit", "sibling", "hairpin")}},
				{"MSS clamped", hidden, clamped, [][]outcome{goOn("out", "host", "visit", "sibling", "hairpin")}},
				{"masquerade on", routed, hidden, [][]outcome{ends("out", uplink4, uplink6), goOn("host", "visit", "sibling", "hairpin")}},
				{"masquerade off", hidden, routed, [][]outcome{ends("out", own4, own6), goOn("host", "visit", "sibling", "hairpin")}},
				{"a fixed address for masquerade", hidden, fixed("198.51.100.1", "2001:db8:2::1"),
					[][]outcome{ends("out", "198.51.100.1", "2001:db8:2::1"), goOn("host", "visit")}},
				{"another fixed address", fixed("198.51.100.1", "2001:db8:2::1"), fixed("203.0.113.5", uplink6),
					[][]outcome{ends("out", "203.0.113.5", uplink6), goOn("host", "visit")}},
				{"masquerade for a fixed address of the same link", fixed("203.0.113.5", "2001:db8:2::1"), hidden,
					[][]outcome{ends("out", uplink4, uplink6), goOn("host", "visit")}},
				{"masquerade for the fixed address that it takes", fixed(uplink4, uplink6), hidden, [][]outcome{goOn("out", "host", "visit")}},
				{"a fixed address off", fixed("198.51.100.1", uplink6), routed, [][]outcome{ends("out", own4, own6), goOn("host", "visit")}},
				{"internal on", routed, internal, [][]outcome{ends("out"), goOn("host", "visit", "sibling", "hairpin")}},
				{"internal off", internal, hidden, [][]outcome{goOn("host", "visit", "sibling", "hairpin")}},
				{"isolated on", hidden, isolated, [][]outcome{ends("sibling"), ends("out", own4, own6), goOn("host", "visit", "hairpin")}},
				{"isolated off", isolated, routed, [][]outcome{goOn("out", "host", "visit", "hairpin")}},
				{"a way to another network off", linked, routed, [][]outcome{ends("cross"), goOn("out", "host", "visit", "sibling")}},
				{"a way to another network on", routed, linked, [][]outcome{goOn("out", "host", "visit", "sibling")}},
				{"pinholes off", opened, routed, [][]outcome{ends("direct"), goOn("out", "host", "visit", "sibling")}},
				{"pinholes on", routed, opened, [][]outcome{goOn("out", "host", "visit", "sibling")}},
				{"strict on", hidden, strict, [][]outcome{ends("out"), ends("host"), ends("sibling"), ends("hairpin"), goOn("visit")}},
				{"strict off", strict, hidden, [][]outcome{goOn("visit")}},
				{"trusted on", hidden, trusted, [][]outcome{ends("out", own4, own6), goOn("host", "visit", "sibling", "hairpin")}},
				{"trusted off", trusted, hidden, [][]outcome{ends("out", uplink4, uplink6), ends("direct"), goOn("host", "visit", "sibling", "hairpin")}},
				{"VisitorSNAT on", visited(), visited("198.51.100.1", "2001:db8:2::1"),
					[][]outcome{ends("far", "198.51.100.1", "2001:db8:2::1"), goOn("out", "host", "visit", "sibling", "hairpin")}},
				{"another VisitorSNAT", visited("198.51.100.1", "2001:db8:2::1"), visited("10.88.0.1", "fd88::1"),
					[][]outcome{ends("far", "10.88.0.1", "fd88::1"), goOn("out", "host", "visit", "sibling", "hairpin")}},
				{"VisitorSNAT off", visited("198.51.100.1", "2001:db8:2::1"), visited(),
					[][]outcome{ends("far", "203.0.113.9", "2001:db8:1::9"), goOn("out", "host", "visit", "sibling", "hairpin")}},
				{"VisitorSNAT and its prefixes on", hidden, visited("198.51.100.1", "2001:db8:2::1"),
					[][]outcome{ends("far", "198.51.100.1", "2001:db8:2::1"), goOn("out", "host", "visit", "sibling", "hairpin")}},
				{"VisitorSNAT and its prefixes off", visited("198.51.100.1", "2001:db8:2::1"), hidden,
					[][]outcome{ends("far", "203.0.113.9", "2001:db8:1::9"), goOn("out", "host", "visit", "sibling", "hairpin")}},
				{"an MSS with VisitorSNAT", visited("198.51.100.1", "2001:db8:2::1"), visitedAndClamped,
					[][]outcome{goOn("far", "out", "host", "visit", "sibling", "hairpin")}},
				{"isolated on with a far port", hidden, isolated, [][]outcome{goOn("far", "visit")}},
			} {
				if testing.Short() && (i%len(verbs) != turn || !testutil.Spread(i/len(verbs), 2)) { // one of the verbs
					continue
				}
				if err := s.gw.Sync(t.Context(), State{Networks: []Network{c.before, network1()}, Ports: ports}); err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				var kinds []string
				for _, o := range slices.Concat(c.outcomes...) {
					kinds = append(kinds, o.kind)
				}
				s.begin(kinds...)
				if err := v.change(t, s, c.to, ports); err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				s.check(c.name, c.outcomes...)
			}
		})
	}
}

// What comes and goes with a whole network, a port and a pinhole.
func TestAddedAndRemovedThingsEndWhatTheyForbidAndNothingElse(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newSweeping(t)
	ports := sweptPorts("2")
	hidden, routed := network0(), network0()
	routed.Masquerade = false
	state := func(net Network, ports []Port) State {
		return State{Networks: []Network{net, network1()}, Ports: ports}
	}
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}

	must(s.gw.Sync(t.Context(), state(hidden, ports)))
	s.begin("out", "host", "visit")
	must(s.gw.Unpublish(t.Context(), ports...))
	s.check("Unpublish", ends("visit"), goOn("out", "host"))
	must(s.gw.Publish(t.Context(), ports...))
	s.begin("out", "host", "visit")
	must(s.gw.UnpublishOwner(t.Context(), "web"))
	s.check("UnpublishOwner", ends("visit"), goOn("out", "host"))
	must(s.gw.Publish(t.Context(), ports...))
	s.begin("out", "host", "visit")
	must(s.gw.Sync(t.Context(), state(hidden, sweptPorts("3"))))
	s.check("Sync with other boxes", ends("visit", "203.0.113.9", "2001:db8:1::9"), goOn("out", "host"))
	s.begin("out", "host", "visit")
	must(s.gw.Sync(t.Context(), state(hidden, nil)))
	s.check("Sync without ports", ends("visit"), goOn("out", "host"))

	// What DeletePinholes leaves goes on, whatever else changes, and when a program
	// begins again; not when the table had been away.
	must(s.gw.Sync(t.Context(), state(routed, nil)), s.gw.AddPinholes(t.Context(), boxPinholes()...))
	s.begin("out", "direct")
	must(s.gw.DeletePinholes(t.Context(), boxPinholes()...))
	s.check("DeletePinholes", goOn("out", "direct"))
	linked := routed
	linked.AllowTo = []string{"br1"}
	must(s.gw.SetNetwork(t.Context(), linked))
	s.check("DeletePinholes, then SetNetwork", goOn("out", "direct"))
	must(s.gw.Sync(t.Context(), state(routed, ports)))
	s.check("DeletePinholes, then Sync", goOn("out", "direct"))
	s.gw.Close()
	s.gw = open(t, s.host)
	must(s.gw.Sync(t.Context(), state(routed, ports)))
	s.check("DeletePinholes, then another program's Sync", goOn("out", "direct"))
	testutil.Run(t, s.host, "nft", "delete table inet boxwire")
	must(s.gw.Sync(t.Context(), state(routed, ports)))
	s.check("DeletePinholes, then Sync of a table that was away", ends("direct"), goOn("out"))

	// Of a network that goes, what the links that it made forward let pass.
	must(s.gw.Sync(t.Context(), state(hidden, ports)))
	s.begin("out", "host", "visit")
	must(s.gw.DeleteNetwork(t.Context(), "br0"))
	s.check("DeleteNetwork", ends("out"), goOn("host", "visit"))
	must(s.gw.AddNetwork(t.Context(), routed), s.gw.AddPinholes(t.Context(), boxPinholes()...))
	s.begin("out", "host", "visit", "direct")
	must(s.gw.Sync(t.Context(), State{Networks: []Network{network1()}, Ports: ports}))
	s.check("Sync without the network", ends("out"), ends("direct"), goOn("host", "visit"))

	// And by which its visitors were translated.
	visited := hidden
	visited.Trusted, visited.VisitorSNAT = prefixes("198.51.100.0/24", "2001:db8:2::7:0/112"), addrs("198.51.100.1", "2001:db8:2::1")
	must(s.gw.Sync(t.Context(), state(visited, farPorts())))
	s.begin("far", "host")
	must(s.gw.DeleteNetwork(t.Context(), "br0"))
	s.check("DeleteNetwork with VisitorSNAT", ends("far", "203.0.113.9", "2001:db8:1::9"), goOn("host"))
	s.begin("far", "host")
	must(s.gw.AddNetwork(t.Context(), visited))
	s.check("AddNetwork with VisitorSNAT", ends("far", "198.51.100.1", "2001:db8:2::1"), goOn("host"))
	s.begin("far", "host")
	must(s.gw.Sync(t.Context(), State{Networks: []Network{network1()}, Ports: farPorts()}))
	s.check("Sync without a network with VisitorSNAT", ends("far", "203.0.113.9", "2001:db8:1::9"), goOn("host"))

	must(s.gw.Sync(t.Context(), state(hidden, ports)))
	s.begin("out", "host", "visit")
	must(s.gw.Delete(t.Context()))
	s.check("Delete", ends("out"), goOn("host"))
}

// A host that forwards without the table lets pass what a network then forbids, and
// what it forbade is let pass when it goes.
func TestANetworkOfARouterComesAndGoes(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newSweeping(t)
	setSysctl(t, s.host, "ipv4/ip_forward", "1")
	setSysctl(t, s.host, "ipv6/conf/all/forwarding", "1")
	if err := s.gw.AddNetwork(t.Context(), network1()); err != nil { // tracks connections
		t.Fatal(err)
	}
	routed := network0()
	routed.Masquerade = false
	s.begin("out", "host", "direct", "sibling")
	if err := s.gw.AddNetwork(t.Context(), routed); err != nil {
		t.Fatal(err)
	}
	s.check("AddNetwork", ends("direct"), goOn("out", "host", "sibling"))
	s.begin("out", "host")
	if err := s.gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	s.check("DeleteNetwork", goOn("out", "host"))
	s.begin("out", "host", "direct")
	if err := s.gw.AddNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	s.check("AddNetwork with masquerade", ends("direct"), ends("out", "203.0.113.1", "2001:db8:1::1"), goOn("host"))
	s.begin("out", "host")
	if err := s.gw.DeleteNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	s.check("DeleteNetwork with masquerade", ends("out", "10.88.0.2", "fd88::2"), goOn("host"))
}

// What began while an element was missing ends when Maintain has put it back.
func TestMaintainEndsWhatBeganWithoutAnElement(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newSweeping(t)
	internal := network1()
	internal.Internal = true
	state := State{Networks: []Network{network0(), internal}, Ports: sweptPorts("2")}
	var repairing sync.Mutex // Maintain asks for the state before it repairs
	all := maintain(t, newMaintainer(s.gw, func() State {
		repairing.Lock()
		defer repairing.Unlock()
		return state
	}))
	for _, c := range []struct {
		nft      string
		begin    []string
		outcomes [][]outcome
	}{
		{"flush set inet boxwire masq4; flush set inet boxwire masq6", []string{"out", "host", "visit"},
			[][]outcome{ends("out", "203.0.113.1", "2001:db8:1::1"), goOn("host", "visit")}},
		{"flush chain inet boxwire to_box; add rule inet boxwire to_box accept", []string{"direct", "cross", "visit"},
			[][]outcome{ends("direct"), ends("cross"), goOn("visit")}},
	} {
		func() {
			repairing.Lock()
			defer repairing.Unlock()
			testutil.Run(t, s.host, "nft", c.nft)
			s.begin(c.begin...)
		}()
		next(t, all)
		s.check(c.nft, c.outcomes...)
	}
}
