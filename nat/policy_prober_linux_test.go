package nat

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A prober sends datagrams to closed destinations all the while, each from a port of its own, so
// that each begins a connection, and one to an open destination now and then.
type prober struct {
	from   wireEnd
	gate   net.HardwareAddr
	pairs  [][2]string // of sources and destinations
	ports  uint16      // the first port of the frames
	frames [][]byte

	sent   atomic.Int64
	closed atomic.Int64 // datagrams that arrived where none may
	open   atomic.Int64 // those that arrived where they may
	stop   chan struct{}
	ended  chan struct{}
}

// openPort is the port of the open destination; no other port is open.
const openPort = 443

// newProber returns a prober that will send from the end of a wire to a gate, for each pair of a source
// and a destination.
func newProber(end wireEnd, gate net.HardwareAddr, pairs ...[2]string) *prober {
	p := &prober{from: end, gate: gate, pairs: pairs, ports: 20000, stop: make(chan struct{}), ended: make(chan struct{})}
	p.write()
	return p
}

// probePorts is the count of ports that a prober sends from.
const probePorts = 2048

// write builds the frames, one for each port and pair.
func (p *prober) write() {
	p.frames = nil
	for i := range uint16(probePorts) {
		for _, pair := range p.pairs {
			src := netip.AddrPortFrom(netip.MustParseAddr(pair[0]), p.ports+i)
			p.frames = append(p.frames, slices.Concat(p.gate, p.from.from, datagram(src, ap(pair[1]), "probe")))
		}
	}
}

// start begins to send, until the prober is ended.
func (p *prober) start(t *testing.T) {
	go func() {
		defer close(p.ended)
		to := &unix.SockaddrLinklayer{Ifindex: p.from.index, Halen: 6}
		for i := 0; ; i++ {
			if i%64 == 0 {
				select {
				case <-p.stop:
					return
				default:
				}
			}
			if unix.Sendto(p.from.fd, p.frames[i%len(p.frames)], 0, to) == nil {
				p.sent.Add(1)
			}
		}
	}()
	t.Cleanup(p.end)
}

// again starts a prober that has ended. It sends from other ports: a datagram from a port of before may
// belong to a flow that stays as it began.
func (p *prober) again(t *testing.T) {
	p.closed.Store(0)
	p.ports += probePorts
	p.write()
	p.stop, p.ended = make(chan struct{}), make(chan struct{})
	p.start(t)
}

// end stops the prober.
func (p *prober) end() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	<-p.ended
}

// hear counts what datagrams of the prober arrive at a link.
func (p *prober) hear(t *testing.T, ns *netns.NS, dev string) {
	t.Helper()
	watchFrames(t, ns, dev, false, func(f parsed) {
		switch {
		case string(f.payload) != "probe":
		case f.dst.Port() == openPort:
			p.open.Add(1)
		default:
			p.closed.Add(1)
		}
	})
}

// receive counts what datagrams of the prober sockets of a namespace receive.
func (p *prober) receive(t *testing.T, ns *netns.NS, pairs ...[2]string) {
	t.Helper()
	for _, pair := range pairs {
		c, err := ns.ListenPacket(t.Context(), "udp", pair[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			for buf := make([]byte, 64); ; {
				if _, _, err := c.ReadFrom(buf); err != nil {
					return
				}
				p.closed.Add(1)
			}
		}()
	}
}

// A flip is two states of the table, each of which denies what the prober tries. It is changed from
// one to the other and back, while the prober sends.
type flip struct {
	name     string
	from     func(s *topology) *netns.NS // the prober's; nil is the box's
	pairs    [][2]string                 // of sources and destinations
	at       func(s *topology) *netns.NS // where nothing may arrive; nil is outside
	filtered bool                        // with br_netfilter
	synced   bool                        // the changes are those of Sync
	opened   string                      // commands of nft that open what the second state closes; policies by default
	between  [2]func(ctx context.Context, gw *NAT) error
}

// set makes a flip between the policies of boxes.
func set(a, b []Policy) [2]func(ctx context.Context, gw *NAT) error {
	return [2]func(context.Context, *NAT) error{
		func(ctx context.Context, gw *NAT) error { return gw.SetPolicies(ctx, a...) },
		func(ctx context.Context, gw *NAT) error { return gw.SetPolicies(ctx, b...) },
	}
}

// addForeignRule damages the table by a rule that does nothing.
func addForeignRule(ctx context.Context, gw *NAT) error {
	c, err := gw.conn()
	if err != nil {
		return err
	}
	return c.Commit(ctx, gw.table, nft.BuildFunc(func(context.Context) (*nft.Batch, error) {
		b := nft.NewBatch(gw.table)
		b.AddRule("connects", &expr.Counter{})
		return b, nil
	}))
}

// natted publishes port 9 of UDP beside the library, for two addresses.
func natted(four, six string) string {
	return fmt.Sprintf("add element inet boxwire any4 { udp . 9 : %s . 9 }; add element inet boxwire any6 { udp . 9 : %s . 9 }", four, six)
}

// synced makes a flip between two states of the table.
func synced(a, b State) [2]func(ctx context.Context, gw *NAT) error {
	return [2]func(context.Context, *NAT) error{
		func(ctx context.Context, gw *NAT) error { return gw.Sync(ctx, a) },
		func(ctx context.Context, gw *NAT) error { return gw.Sync(ctx, b) },
	}
}

// flips are the changes between two states that deny the same by different means. The lookups of a
// packet follow each other, so the first may find the old state, and the next the new one.
func flips(t *testing.T) []flip {
	box, sibling := addrs("10.88.0.2", "fd88::2"), addrs("10.88.0.3", "fd88::3")
	both := func(f func(p *Policy), boxes ...[]netip.Addr) (all []Policy) {
		for _, b := range boxes {
			p := Policy{Box: b, Owner: "p"}
			f(&p)
			all = append(all, p)
		}
		return all
	}
	egress := func(rules ...string) []Policy {
		return both(func(p *Policy) { p.Egress = allows(t, rules...) }, box)
	}
	ingress := func(rules ...string) []Policy {
		return both(func(p *Policy) { p.Ingress = allows(t, rules...) }, box)
	}
	out := [][2]string{{"10.88.0.2", "203.0.113.9:9"}, {"fd88::2", "[2001:db8:1::9]:9"}}
	beside := [][2]string{{"10.88.0.2", "10.88.0.3:9"}, {"fd88::2", "[fd88::3]:9"}}
	in := [][2]string{{"203.0.113.9", "10.88.0.2:9"}, {"2001:db8:1::9", "[fd88::2]:9"}}
	siblingIs := func(s *topology) *netns.NS { return s.sibling }
	boxIs := func(s *topology) *netns.NS { return s.box }
	outsideIs := func(s *topology) *netns.NS { return s.outside }
	otherIs := func(s *topology) *netns.NS { return s.other }
	hostIs := func(s *topology) *netns.NS { return s.host }
	open := network0()
	for _, a := range []string{"10.88.0.2:9", "[fd88::2]:9"} {
		open.Pinholes = append(open.Pinholes, Pinhole{Proto: UDP, Box: ap(a), Owner: "p"})
	}
	net, strict, internal := network0(), network0(), network0()
	strict.Strict, internal.Internal = true, true
	host := [][2]string{{"10.88.0.2", "203.0.113.1:9"}, {"fd88::2", "[2001:db8:1::1]:9"}}
	trusting := network0()
	trusting.Trusted = bothFamilies("203.0.113.0/24", "2001:db8:1::/64")
	divided := network0()
	divided.Trusted = bothFamilies("10.88.7.0/24", "fd88::7:0:0:0/80")
	inside := [][2]string{{"10.88.7.9", "10.88.0.2:9"}, {"fd88::7:0:0:9", "[fd88::2]:9"}}
	published := [][2]string{{"203.0.113.9", "203.0.113.1:9"}, {"2001:db8:1::9", "[2001:db8:1::1]:9"}}
	publish := func(four, six string) []Port {
		return []Port{
			{Proto: UDP, Host: ap("0.0.0.0:9"), Box: ap(four), Owner: "p"},
			{Proto: UDP, Host: ap("[::]:9"), Box: ap(six), Owner: "p"},
		}
	}
	ports, elsewhere := publish("10.88.0.2:9", "[fd88::2]:9"), publish("10.88.0.7:9", "[fd88::7]:9")
	there, far := [][2]string{{"10.88.0.2", "203.0.113.1:9"}, {"fd88::2", "[2001:db8:1::1]:9"}}, publish("10.89.0.2:9", "[fd89::2]:9")
	onePair := func(own, peer []Policy) []Policy { return append(own, peer...) }
	return []flip{
		{name: "an exception comes with what it is of", pairs: out, between: set(
			egress("tcp 192.0.2.0/24"),
			egress("203.0.0.0/8 except 203.0.113.0/24", "2001:db8::/32 except 2001:db8:1::9/128"))},
		{name: "an exception of ports", pairs: out, between: set(
			egress("udp 203.0.113.9 port 8", "udp 2001:db8:1::9 port 8"),
			egress("udp 203.0.0.0/8 except 203.0.113.9/32 port 1-100", "udp 2000::/8 except 2001:db8:1::9/128 port 1-100"))},
		{name: "an exception becomes a wider one", pairs: out, between: set(
			egress("203.0.113.0/24 except 203.0.113.9/32", "2001:db8:1::/64 except 2001:db8:1::9/128"),
			egress("203.0.0.0/8 except 203.0.112.0/20", "2001:db8::/32 except 2001:db8:1::/48"))},
		{name: "an exception in ingress", pairs: in, from: outsideIs, at: boxIs, between: [2]func(context.Context, *NAT) error{
			func(ctx context.Context, gw *NAT) error {
				return gw.Sync(ctx, State{Networks: []Network{open}, Policies: ingress()})
			},
			func(ctx context.Context, gw *NAT) error {
				return gw.SetPolicies(ctx, ingress("203.0.0.0/8 except 203.0.113.0/24", "2001:db8::/32 except 2001:db8:1::9/128")...)
			},
		}},
		{name: "two ends of a connection", pairs: beside, at: siblingIs, between: set(
			onePair(egress("10.88.0.0/16", "fd88::/64"), both(func(p *Policy) { p.Ingress = allows(t) }, sibling)),
			onePair(egress(), both(func(p *Policy) { p.Ingress = allows(t, "10.88.0.0/16", "fd88::/64") }, sibling)))},
		{name: "Strict and a policy", pairs: out, synced: true, between: synced(
			State{Networks: []Network{strict}},
			State{Networks: []Network{net}, Policies: egress()})},
		{name: "Internal and a policy", pairs: out, synced: true, between: synced(
			State{Networks: []Network{internal}},
			State{Networks: []Network{net}, Policies: egress()})},
		{name: "Strict and a policy, of the host", pairs: host, at: hostIs, synced: true, between: synced(
			State{Networks: []Network{strict}},
			State{Networks: []Network{net}, Policies: egress("203.0.113.0/24")})},
		{name: "no pinhole and a policy", pairs: in, from: outsideIs, at: boxIs, synced: true, between: synced(
			State{Networks: []Network{net}},
			State{Networks: []Network{open}, Policies: ingress("tcp port 1")})},
		{name: "Internal and a published port of another network", pairs: there, at: otherIs, synced: true, between: synced(
			State{Networks: []Network{internal, network1()}, Ports: far},
			State{Networks: []Network{net, network1()}}), opened: natted("10.89.0.2", "fd89::2")},
		{name: "Trusted and a policy", pairs: in, from: outsideIs, at: boxIs, synced: true, between: synced(
			State{Networks: []Network{net}},
			State{Networks: []Network{trusting}, Policies: ingress("tcp port 1")})},
		{name: "a trusted prefix inside the subnet and a policy", pairs: inside, from: outsideIs, at: boxIs, synced: true, between: synced(
			State{Networks: []Network{net}},
			State{Networks: []Network{divided}, Policies: ingress("tcp port 1")})},
		{name: "a published port and a policy", pairs: published, from: outsideIs, at: boxIs, synced: true, between: synced(
			State{Networks: []Network{net}},
			State{Networks: []Network{net}, Ports: ports, Policies: ingress("tcp port 1")})},
		{name: "a published port of another box", pairs: published, from: outsideIs, at: boxIs, synced: true, between: synced(
			State{Networks: []Network{net}, Ports: elsewhere},
			State{Networks: []Network{net}, Ports: ports, Policies: ingress("tcp port 1")})},
		{name: "a table that is rebuilt", pairs: out, synced: true, between: [2]func(context.Context, *NAT) error{
			func(ctx context.Context, gw *NAT) error {
				return gw.Sync(ctx, State{Networks: []Network{net}, Policies: egress("tcp port 1")})
			},
			addForeignRule,
		}},
		{name: "others come and go", pairs: out, between: set(
			egress("udp 203.0.113.9 port 443", "udp 2001:db8:1::9 port 443"),
			append(egress("udp 203.0.113.9 port 443", "udp 2001:db8:1::9 port 443", "tcp host port 1"), Policy{Box: addrs("10.88.0.7"), Owner: "p", Egress: allows(t, "0.0.0.0/0")}))},
	}
}

// At no moment of a change is open what is closed before and after it.
func TestNothingClosedIsOpenWhilePoliciesChange(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for i, f := range flips(t) {
		if !testutil.Spread(i, 4) {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			s := newTopology(t)
			bridgeNF(t, s.host, f.filtered)
			s.waitReady(t)
			from, at := s.box, s.outside
			if f.from != nil {
				from = f.from(&s)
			}
			if f.at != nil {
				at = f.at(&s)
			}
			devs := map[*netns.NS]string{s.box: "eth0", s.sibling: "eth0", s.other: "eth0", s.outside: "wan0"}
			gates := map[*netns.NS]string{s.box: "br0", s.sibling: "br0", s.outside: "up0"}
			if err := f.between[0](t.Context(), s.gw); err != nil {
				t.Fatal(err)
			}
			p := newProber(newWireEnd(t, from, devs[from]), macOf(t, s.host, gates[from]), f.pairs...)
			if at == s.host {
				p.receive(t, at, f.pairs...)
			} else {
				p.hear(t, at, devs[at])
			}
			p.start(t)
			changes := stress(30, 200, 2000)
			if f.synced {
				changes = stress(10, 40, 500) // each looks at all flows
			}
			began := time.Now()
			for i := range changes {
				if err := f.between[i%2](t.Context(), s.gw); err != nil {
					t.Fatal(err)
				}
			}
			took := time.Since(began)
			for full := p.sent.Load() + int64(len(p.frames)); p.sent.Load() < full; {
				time.Sleep(time.Millisecond) // till each port has sent in the last state
			}
			p.end()
			if n := p.closed.Load(); n > 0 {
				t.Errorf("%d of %d datagrams arrived in %d changes", n, p.sent.Load(), changes)
			}
			t.Logf("%d datagrams, %d changes in %v", p.sent.Load(), changes, took)
			if f.opened == "" {
				f.opened = "flush set inet boxwire egress4; flush set inet boxwire egress6; flush set inet boxwire ingress4; flush set inet boxwire ingress6"
			}
			testutil.Run(t, s.host, "nft", f.opened)
			p.again(t)
			if !until(func() bool { return p.closed.Load() > 0 }) {
				t.Error("nothing arrives when the policies are taken away: the test proves nothing")
			}
		})
	}
}
