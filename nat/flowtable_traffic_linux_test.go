package nat

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

// textLen is the length of each text of a dialogue.
const textLen = 8

// dialogues numbers the texts.
var dialogues atomic.Int64

func newText() string { return fmt.Sprintf("%0*d", textLen, dialogues.Add(1)) }

// hearing hears and answers texts of a protocol at an address.
func hearing(t *testing.T, ns *netns.NS, proto Proto, addr string) *receiver {
	t.Helper()
	if proto == UDP {
		return listenAndAnswer(t, ns, addr)
	}
	ln, err := ns.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	e := &receiver{heard: map[string]struct{}{}}
	var all []net.Conn
	closed := false
	var running sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		e.mu.Lock()
		closed = true
		for _, c := range all {
			c.Close() // the other end's FIN may be lost
		}
		e.mu.Unlock()
		running.Wait()
	})
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			all = append(all, c)
			if closed {
				c.Close()
			}
			e.mu.Unlock()
			running.Go(func() {
				defer c.Close()
				b := make([]byte, textLen)
				for {
					if _, err := io.ReadFull(c, b); err != nil {
						return
					}
					e.mu.Lock()
					e.heard[string(b)] = struct{}{}
					e.mu.Unlock()
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			})
		}
	})
	return e
}

// dialogue is a flow that texts go by.
type dialogue struct {
	net.Conn
	proto Proto
	local netip.AddrPort
}

// begin begins a flow.
func begin(t *testing.T, from *netns.NS, proto Proto, to string) dialogue {
	t.Helper()
	var c net.Conn
	var err error
	network := strings.ToLower(proto.String())
	if !until(func() bool { c, err = from.Dial(t.Context(), network, to); return err == nil }) {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return dialogue{c, proto, netip.MustParseAddrPort(c.LocalAddr().String())}
}

// answered sends a text and waits for its return.
func (c dialogue) answered(t *testing.T) {
	t.Helper()
	b := make([]byte, textLen)
	text := newText()
	for range 100 {
		if _, err := c.Write([]byte(text)); err != nil && c.proto == TCP {
			t.Fatalf("%v to %v: %v", c.proto, c.RemoteAddr(), err)
		}
		within := 100 * time.Millisecond // then a datagram is sent again
		if c.proto == TCP {
			within = time.Minute
		}
		c.SetReadDeadline(time.Now().Add(within))
		for {
			_, err := io.ReadFull(c, b)
			if err == nil && string(b) == text {
				return
			}
			if err != nil {
				break
			}
		}
		if c.proto == TCP {
			break
		}
	}
	t.Fatalf("%v from %v to %v: no answer", c.proto, c.local, c.RemoteAddr())
}

// isOffloaded reports whether the flow is in a flowtable, as the library lists it.
func (c dialogue) isOffloaded(t *testing.T, gw *NAT) bool {
	t.Helper()
	flows, err := gw.ListFlows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(flows, func(f Flow) bool { return f.Proto == c.proto && f.Original.Src == c.local })
	return i >= 0 && flows[i].Offloaded
}

// offloaded waits until the flow is in the flowtable.
func (c dialogue) offloaded(t *testing.T, gw *NAT) {
	t.Helper()
	if !until(func() bool { c.answered(t); return c.isOffloaded(t, gw) }) {
		t.Fatalf("%v from %v to %v is not in the flowtable", c.proto, c.local, c.RemoteAddr())
	}
}

// countForwarded counts what passes the hook forward behind the table of the NAT, and returns what reads
// the counter.
func countForwarded(t *testing.T, ns *netns.NS) func() int {
	t.Helper()
	testutil.Run(t, ns, "nft", "add table inet witness; add counter inet witness seen; "+
		"add chain inet witness fw { type filter hook forward priority 20; }; add rule inet witness fw counter name seen")
	number := regexp.MustCompile(`packets (\d+)`)
	return func() int {
		out := testutil.Run(t, ns, "nft", "list", "counter", "inet", "witness", "seen")
		n, err := strconv.Atoi(number.FindStringSubmatch(out)[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// flowingNetwork is the network on br0 with the option.
func flowingNetwork() Network {
	net := network0()
	net.Flowtable = true
	return net
}

// newFlowing is a topology whose network br0 has the option, and published ports.
func newFlowing(t *testing.T, change func(*Network)) topology {
	t.Helper()
	needFlowtable(t)
	s := wire(t)
	s.gw = open(t, s.host)
	net := flowingNetwork()
	if change != nil {
		change(&net)
	}
	near := network1()
	near.Flowtable = true
	for _, n := range []Network{net, near} {
		if err := s.gw.AddNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.gw.Publish(t.Context(), flowPorts()...); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	return s
}

func flowPorts() []Port {
	return []Port{
		tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), udp("0.0.0.0:8080", "10.88.0.2:80", "web"),
		tcp("[::]:8080", "[fd88::2]:80", "web"), udp("[::]:8080", "[fd88::2]:80", "web"),
	}
}

// boxServers hear at port 80 of the box, by protocol and family.
func boxServers(t *testing.T, s topology, protos ...Proto) (all []*receiver) {
	t.Helper()
	for _, proto := range protos {
		all = append(all, hearing(t, s.box, proto, "10.88.0.2:80"), hearing(t, s.box, proto, "[fd88::2]:80"))
	}
	return all
}

// Established flows do not pass the hook forward: those to a published port, to the outside and to
// another network, of both protocols and families. Without the option they go on, and pass it again.
func TestFlowtableForwardsEstablishedFlows(t *testing.T) {
	t.Parallel()
	s := newFlowing(t, func(net *Network) { net.AllowTo = []string{"br1"} })
	hasDevices(t, s.host, withPorts([]string{"br0", "br1", "up0", "up1"}, "box0", "sib0", "oth0")...)
	boxServers(t, s, TCP, UDP)
	for _, proto := range []Proto{TCP, UDP} {
		for _, at := range []struct {
			ns    *netns.NS
			addrs []string
		}{{s.outside, []string{"203.0.113.9:90", "[2001:db8:1::9]:90"}}, {s.other, []string{"10.89.0.2:90", "[fd89::2]:90"}}} {
			for _, addr := range at.addrs {
				hearing(t, at.ns, proto, addr)
			}
		}
	}
	seen := countForwarded(t, s.host)
	var all []dialogue
	for _, c := range []struct {
		from *netns.NS
		to   []string
	}{
		{s.outside, []string{"203.0.113.1:8080", "[2001:db8:1::1]:8080"}},
		{s.box, []string{"203.0.113.9:90", "[2001:db8:1::9]:90"}},
		{s.box, []string{"10.89.0.2:90", "[fd89::2]:90"}},
	} {
		for _, to := range c.to {
			for _, proto := range []Proto{TCP, UDP} {
				c := begin(t, c.from, proto, to)
				c.offloaded(t, s.gw)
				passed := 0
				// The kernel takes a flow out when its route is looked up again, and in with its next packet.
				if !until(func() bool {
					before := seen()
					for range 20 {
						c.answered(t)
					}
					passed = seen() - before
					return passed == 0
				}) {
					t.Errorf("%v to %v: %d packets passed the hook forward", proto, to, passed)
				}
				all = append(all, c)
			}
		}
	}

	net := network0()
	net.AllowTo = []string{"br1"}
	if err := s.gw.SetNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	if err := s.gw.SetNetwork(t.Context(), network1()); err != nil {
		t.Fatal(err)
	}
	hasFlowtable(t, s.host)
	for _, c := range all {
		before := seen()
		c.answered(t)
		if seen() == before {
			t.Errorf("without the option, %v to %v does not pass the hook forward", c.proto, c.RemoteAddr())
		}
	}
}

// A change of a network leaves the flows, and each is in the flowtable again.
func TestFlowsComeBackToTheFlowtable(t *testing.T) {
	t.Parallel()
	s := newFlowing(t, nil)
	boxServers(t, s, TCP, UDP)
	flows := []dialogue{begin(t, s.outside, TCP, "203.0.113.1:8080"), begin(t, s.outside, UDP, "[2001:db8:1::1]:8080")}
	net := flowingNetwork()
	for i := range 3 {
		for _, c := range flows {
			c.offloaded(t, s.gw)
		}
		net.MSS = uint16(1200 + i)
		if err := s.gw.SetNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
	}
	testutil.Run(t, s.host, "nft", "delete table inet boxwire/flowtable")
	for _, c := range flows {
		c.answered(t)
	}
	if err := s.gw.Sync(t.Context(), State{Networks: []Network{net, network1()}, Ports: flowPorts()}); err != nil {
		t.Fatal(err)
	}
	for _, c := range flows {
		c.offloaded(t, s.gw)
	}
}

// What ends other flows ends those of the flowtable: not one packet that is sent after the call arrives.
func TestFlowsOfTheFlowtableEnd(t *testing.T) {
	t.Parallel()
	type way struct {
		from, to *netns.NS
		at, dial string // where the server is, and by which address it is reached
	}
	published := func(s topology) []way {
		return []way{{s.outside, s.box, "10.88.0.2:80", "203.0.113.1:8080"}, {s.outside, s.box, "[fd88::2]:80", "[2001:db8:1::1]:8080"}}
	}
	routed := func(s topology) []way {
		return []way{{s.outside, s.box, "10.88.0.2:80", "10.88.0.2:80"}, {s.outside, s.box, "[fd88::2]:80", "[fd88::2]:80"}}
	}
	outgoing := func(s topology) []way {
		return []way{{s.box, s.outside, "203.0.113.9:90", "203.0.113.9:90"}, {s.box, s.outside, "[2001:db8:1::9]:90", "[2001:db8:1::9]:90"}}
	}
	opened := func(net *Network) {
		for _, box := range []string{"10.88.0.2:80", "[fd88::2]:80"} {
			o := pinhole(box, 0, "web")
			net.Pinholes = append(net.Pinholes, o)
			o.Proto = UDP
			net.Pinholes = append(net.Pinholes, o)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*Network)
		ways   func(topology) []way
		end    func(t *testing.T, s topology) error
	}{
		{"Unpublish", nil, published, func(t *testing.T, s topology) error { return s.gw.Unpublish(t.Context(), flowPorts()...) }},
		{"Sync without the ports", nil, published, func(t *testing.T, s topology) error {
			net := flowingNetwork()
			return s.gw.Sync(t.Context(), State{Networks: []Network{net, network1()}})
		}},
		{"SetNetwork without the pinholes", opened, routed, func(t *testing.T, s topology) error {
			net := flowingNetwork()
			return s.gw.SetNetwork(t.Context(), net)
		}},
		{"SetPolicies without ingress", nil, published, func(t *testing.T, s topology) error {
			return s.gw.SetPolicies(t.Context(), Policy{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Ingress: &Rules{}})
		}},
		{"SetPolicies without egress", nil, outgoing, func(t *testing.T, s topology) error {
			host := Rule{Host: true}
			return s.gw.SetPolicies(t.Context(), Policy{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Egress: &Rules{Allow: []Rule{host}}})
		}},
		{"SetNetwork with Internal", nil, outgoing, func(t *testing.T, s topology) error {
			net := flowingNetwork()
			net.Internal = true
			return s.gw.SetNetwork(t.Context(), net)
		}},
		{"DeleteNetwork", nil, outgoing, func(t *testing.T, s topology) error { return s.gw.DeleteNetwork(t.Context(), "br0") }},
		{"Delete", nil, published, func(t *testing.T, s topology) error { return s.gw.Delete(t.Context()) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newFlowing(t, c.change)
			hearing(t, s.host, TCP, "203.0.113.1:70")
			hearing(t, s.host, TCP, "10.88.0.1:70")
			type run struct {
				dialogue
				server *receiver
				after  string
			}
			var all []run
			ways := c.ways(s)
			for _, w := range ways {
				for _, proto := range []Proto{TCP, UDP} {
					r := run{server: hearing(t, w.to, proto, w.at), dialogue: begin(t, w.from, proto, w.dial)}
					r.offloaded(t, s.gw)
					all = append(all, r)
				}
			}
			if err := c.end(t, s); err != nil {
				t.Fatal(err)
			}
			for i := range all {
				all[i].after = newText()
				for range 20 {
					all[i].Write([]byte(all[i].after))
				}
			}
			// What was sent before this has reached the host, and what it lets through has gone on.
			host := "203.0.113.1:70"
			if ways[0].from == s.box {
				host = "10.88.0.1:70"
			}
			mark := begin(t, ways[0].from, TCP, host)
			for range 3 {
				mark.answered(t)
			}
			for _, r := range all {
				if r.server.has(r.after) {
					t.Errorf("%v to %v: what was sent after the end has arrived", r.proto, r.RemoteAddr())
				}
			}
		})
	}
}

// The flowtable takes only packets of the flow's own link. What passes the bridge is none of its
// matter, where the firewall sees it too.
func TestFlowtableTakesNothingForged(t *testing.T) {
	t.Parallel()
	s := newFlowing(t, nil)
	beyond := hearing(t, s.beyond, UDP, "198.51.100.9:90")
	c := begin(t, s.box, UDP, "198.51.100.9:90")
	c.offloaded(t, s.gw)
	from, to := newWireEnd(t, s.outside, "wan0"), macOf(t, s.host, "up0")
	forged := newText()
	for range 20 {
		from.send(t, to, c.local, ap("198.51.100.9:90"), forged)
	}
	hearing(t, s.host, TCP, "203.0.113.1:70")
	mark := begin(t, s.outside, TCP, "203.0.113.1:70")
	mark.answered(t)
	c.answered(t)
	if beyond.has(forged) {
		t.Error("a packet with a box's address from another link has passed by its flow")
	}
	if !c.isOffloaded(t, s.gw) {
		t.Error("the flow is not in the flowtable any more")
	}

	bridgeNF(t, s.host, true)
	boxServers(t, s, UDP)
	near := begin(t, s.sibling, UDP, "10.88.0.2:80")
	for range 10 {
		near.answered(t)
	}
	if near.isOffloaded(t, s.gw) {
		t.Error("a flow that is bridged is in the flowtable")
	}
}

// Behind guards, a sibling cannot enter a box's flow. Where the flowtable takes packets behind the bridge, its
// guard has seen each of them.
func TestFlowtableBehindGuards(t *testing.T) {
	t.Parallel()
	s := newFlowing(t, nil)
	if err := s.gw.SetGuards(t.Context(), s.guards(t)...); err != nil {
		t.Fatal(err)
	}
	beyond := hearing(t, s.beyond, UDP, "198.51.100.9:90")
	c := begin(t, s.box, UDP, "198.51.100.9:90")
	c.offloaded(t, s.gw)
	router := macOf(t, s.host, "br0")
	sibling, box := newWireEnd(t, s.sibling, "eth0"), newWireEnd(t, s.box, "eth0")
	box.from = macOf(t, s.sibling, "eth0")
	bySibling, byMAC := newText(), newText()
	for range 20 {
		sibling.send(t, router, c.local, ap("198.51.100.9:90"), bySibling)
		box.send(t, router, c.local, ap("198.51.100.9:90"), byMAC)
	}
	// What was sent before this has reached the host, and what it lets through has gone on.
	for _, ns := range []*netns.NS{s.sibling, s.box} {
		mark := begin(t, ns, UDP, "198.51.100.9:90")
		for range 3 {
			mark.answered(t)
		}
	}
	if beyond.has(bySibling) {
		t.Error("a sibling's packet has passed by the box's flow")
	}
	if beyond.has(byMAC) && !throughPorts() { // from 7.2 on, the guard does not see them
		t.Error("the box's packets from another MAC address have passed")
	}
	c.answered(t)
	if !c.isOffloaded(t, s.gw) {
		t.Error("the flow is not in the flowtable any more")
	}
}
