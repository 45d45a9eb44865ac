package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"golang.org/x/sys/unix"
)

// The series of the row: a kind of packets, and whose they are.
const (
	kindBack  = "there and back"
	kindFlow  = "a new flow"
	kindFinal = "a new flow, the last lookup"

	nameNoTable  = "no table"
	nameNoPolicy = "boxwire, no policy"
)

func ofBoxes(who string, boxes int) string { return fmt.Sprintf("%s, %d boxes", who, boxes) }

var policyPacketRow = row{
	name: "policy-packet",
	work: "send UDP packets from a box through the host: there and back in an established flow, and the first ones of new flows, with 10, 1,000 and 10,000 boxes that have 10 rules each",
	unit: "packet or flow",
	n:    60,
	run: func(ctx context.Context, b *bout) (err error) {
		sizes := []int{10, b.size(1000, 50), b.size(10_000, 200)}
		var lanes []*lane
		defer func() {
			for _, l := range lanes {
				err = errors.Join(err, l.close())
			}
		}()
		peers, err := b.chainPeers()
		if err != nil {
			return err
		}
		for _, set := range laneSets(sizes, peers) {
			l, err := newLane(ctx, set.name)
			if err != nil {
				return err
			}
			lanes = append(lanes, l)
			if err := set.up(ctx, l); err != nil {
				return fmt.Errorf("%s: %w", set.name, err)
			}
		}
		for _, kind := range []struct {
			name     string
			contends func(l *lane, series string) *contender
		}{{kindBack, (*lane).pings}, {kindFlow, (*lane).flows}, {kindFinal, (*lane).lastFlows}} {
			var turns []*contender
			for _, l := range lanes {
				if kind.name != kindFinal || l.policed {
					turns = append(turns, kind.contends(l, kind.name+", "+l.name))
				}
			}
			if err := b.interleave(ctx, b.n, turns...); err != nil {
				return err
			}
		}
		sayPackets(b, sizes)
		return nil
	},
}

// A laneSet is what a lane's host gets.
type laneSet struct {
	name string
	up   func(context.Context, *lane) error
}

// laneSets are those of all contenders.
func laneSets(sizes []int, peers []*chainPeer) []laneSet {
	all := []laneSet{
		{nameNoTable, func(context.Context, *lane) error { return nil }},
		{nameNoPolicy, func(ctx context.Context, l *lane) error { return l.police(ctx, 0) }},
	}
	for _, boxes := range sizes {
		all = append(all, laneSet{ofBoxes(nameBoxwire, boxes), func(ctx context.Context, l *lane) error { return l.police(ctx, boxes) }})
	}
	for _, peer := range peers {
		for _, boxes := range sizes[:2] {
			all = append(all, laneSet{ofBoxes(peer.name, boxes), func(ctx context.Context, l *lane) error {
				return l.chains(ctx, peer, boxes)
			}})
		}
	}
	return all
}

// sayPackets says what the figures mean.
func sayPackets(b *bout, sizes []int) {
	series := func(kind, who string) string { return kind + ", " + who }
	few, most := ofBoxes(nameBoxwire, sizes[0]), ofBoxes(nameBoxwire, sizes[2])
	for _, kind := range []string{kindBack, kindFlow, kindFinal} {
		for _, boxes := range sizes[1:] {
			b.atMost(series(kind, ofBoxes(nameBoxwire, boxes)), series(kind, few), 1.3)
		}
	}
	ratio := func(kind, who string) float64 {
		return pairRatio(b.figures[series(kind, most)], b.figures[series(kind, who)])
	}
	for _, kind := range []string{kindBack, kindFlow} {
		b.note("%s: the policies of %d boxes cost %.2f times no policy and %.2f times no table.", kind, sizes[2], ratio(kind, nameNoPolicy), ratio(kind, nameNoTable))
	}
	b.brief("first packet of a flow, policies of "+thousands(sizes[2])+" boxes, 10 rules each", series(kindFlow, most), "",
		[2]string{"no policy", series(kindFlow, nameNoPolicy)},
		[2]string{"nft, a rule a rule, " + thousands(sizes[1]) + " boxes", series(kindFlow, ofBoxes(nftChains.name, sizes[1]))},
		[2]string{"iptables, " + thousands(sizes[1]) + " boxes", series(kindFlow, ofBoxes(iptablesChains.name, sizes[1]))})
	b.note("In new flows a second, the figures of new flows are: %.0f with no table, %.0f with no policy, %.0f with the policies of %d boxes, %.0f where the last of all lookups finds the rule.",
		perSecond(b, series(kindFlow, nameNoTable)), perSecond(b, series(kindFlow, nameNoPolicy)), perSecond(b, series(kindFlow, most)), sizes[2],
		perSecond(b, series(kindFinal, most)))
	b.note("With no table there is no conntrack either. Of a new flow, one packet goes one way, and the last of the box's 10 rules allows it: of one port, and a prefix of 16 bits. The others go through the box's chain rule by rule; nft finds the chain with a map, iptables with a rule for each box, this box's behind all.")
}

func perSecond(b *bout, series string) float64 {
	return float64(time.Second) / float64(max(median(b.figures[series]), 1))
}

// A lane leads from a box through a host to a neighbour who has many addresses.
type lane struct {
	street
	name    string
	box     *netns.NS
	gw      *nat.NAT
	sock    *floor.Socket // of the host
	policed bool

	box0, box1 int // sockets in the box, of its two addresses
	echo, sink int // in the neighbour's: of the first address, and of all others
	next       int // number of the next new flow
}

// laneEcho is the address that the established flow is with.
var laneEcho = openPeers.Addr().Next()

func newLane(ctx context.Context, name string) (l *lane, err error) {
	l = &lane{name: name, box0: -1, box1: -1, echo: -1, sink: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.street, err = newStreet(ctx); err != nil {
		return l, err
	}
	if l.box, err = l.attach(ctx); err != nil {
		return l, err
	}
	eth, err := link.Get(ctx, l.box, "eth0")
	if err == nil {
		err = eth.AddAddrs(ctx, link.StaticAddr(boxAddr(1)))
	}
	if err == nil {
		err = l.host.SetSysctl(ctx, "net.ipv4.ip_forward", "1")
	}
	if err == nil {
		err = route.Add(ctx, l.host, route.Route{Dst: openPeers, Via: netip.MustParseAddr(streetOutside)})
	}
	if err == nil {
		const loopback = 1
		err = route.Add(ctx, l.outside,
			route.Route{Dst: openPeers, Dev: loopback, Type: route.TypeLocal},
			route.Route{Dst: policyNetwork.Subnets[0], Via: netip.MustParseAddr(streetHost)})
	}
	if err == nil {
		l.sock, err = openFloor(l.host, unix.NETLINK_NETFILTER)
	}
	if err != nil {
		return l, err
	}
	return l, l.open()
}

// open opens the sockets.
func (l *lane) open() (err error) {
	first, all := sockaddr(laneEcho, openPort), sockaddr(netip.IPv4Unspecified(), openPort)
	box0, box1 := sockaddr(boxAddr(0).Addr(), openPort), sockaddr(boxAddr(1).Addr(), openPort)
	for _, s := range []struct {
		ns   *netns.NS
		fd   *int
		bind unix.Sockaddr
	}{{l.box, &l.box0, box0}, {l.box, &l.box1, box1}, {l.outside, &l.echo, first}, {l.outside, &l.sink, all}} {
		err := within(s.ns, func() (err error) {
			*s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			return err
		})
		if err == nil {
			err = unix.SetsockoptTimeval(*s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
		}
		if err == nil { // the neighbour has one for an address beside one for all
			err = unix.SetsockoptInt(*s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
		if err == nil {
			err = unix.Bind(*s.fd, s.bind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// receive reads a datagram. With a time limit, it is not restarted after a signal, but goes on.
func receive(fd int, b []byte) (n int, err error) {
	for {
		if n, err = unix.Read(fd, b); err != unix.EINTR {
			return n, err
		}
	}
}

func sockaddr(a netip.Addr, port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
}

func (l *lane) close() (err error) {
	for _, fd := range []int{l.box0, l.box1, l.echo, l.sink} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if l.gw != nil {
		err = l.gw.Close()
	}
	if l.sock != nil {
		err = errors.Join(err, l.sock.Close())
	}
	l.box.Close()
	l.street.close()
	return err
}

// police gives the host the library's table, with the policies of so many boxes. The second box is
// this one's second address: a rule allows all that it sends, and is the last to be looked up.
func (l *lane) police(ctx context.Context, boxes int) (err error) {
	policies := policiesOf(boxes)
	if l.policed = boxes > 0; l.policed {
		allow := policies[1].Egress.Allow
		allow[len(allow)-1] = nat.Rule{Peer: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	}
	if l.gw, err = police(ctx, l.host, policies); err == nil && l.policed {
		err = l.closed()
	}
	return err
}

// chains does so with a chain for each box, this one's behind all others.
func (l *lane) chains(ctx context.Context, peer *chainPeer, boxes int) error {
	policies := policiesOf(boxes)
	policies = append(policies[1:], policies[0])
	err := peer.run(ctx, l.host, peer.write(chains{verb: "add", whole: true, policies: policies}))
	if err == nil {
		err = l.closed()
	}
	return err
}

// closed sends what no rule allows, and then what one does: the second has to be the one that
// arrives.
func (l *lane) closed() error {
	for _, send := range []struct {
		word string
		to   unix.Sockaddr
	}{{"denied", sockaddr(netip.MustParseAddr(streetOutside), openPort)}, {"allowed", l.stranger()}} {
		if err := unix.Sendto(l.box0, []byte(send.word), 0, send.to); err != nil {
			return err
		}
	}
	got := make([]byte, 64)
	n, err := receive(l.sink, got)
	if err == nil && string(got[:n]) != "allowed" {
		err = fmt.Errorf("a packet that is %s has arrived", got[:n])
	}
	return err
}

// stranger is an address that the box has had no flow with for long.
func (l *lane) stranger() *unix.SockaddrInet4 {
	const addresses = 60_000
	n := 256 + l.next%addresses // not laneEcho
	l.next++
	a := openPeers.Addr().As4()
	a[2], a[3] = byte(n>>8), byte(n)
	return &unix.SockaddrInet4{Addr: a, Port: openPort}
}

// laneMany is how many packets or flows make one round; the figure is that of one.
const laneMany = 500

// pings makes a contender whose figure is a packet there and its answer.
func (l *lane) pings(series string) *contender {
	there, back := sockaddr(laneEcho, openPort), sockaddr(boxAddr(0).Addr(), openPort)
	b := make([]byte, 64)
	ping := func() error {
		err := unix.Sendto(l.box0, b, 0, there)
		if err == nil {
			_, err = receive(l.echo, b)
		}
		if err == nil {
			err = unix.Sendto(l.echo, b, 0, back)
		}
		if err == nil {
			_, err = receive(l.box0, b)
		}
		return err
	}
	return &contender{name: series, round: func(context.Context, int) (time.Duration, error) {
		if err := ping(); err != nil { // the flow begins
			return 0, err
		}
		d, err := took(func() error {
			for range laneMany {
				if err := ping(); err != nil {
					return err
				}
			}
			return nil
		})
		return d / laneMany, err
	}}
}

// flows makes a contender whose figure is the first packet of a flow.
func (l *lane) flows(series string) *contender { return l.flowsFrom(series, &l.box0) }

// lastFlows does so from the box's second address.
func (l *lane) lastFlows(series string) *contender { return l.flowsFrom(series, &l.box1) }

func (l *lane) flowsFrom(series string, from *int) *contender {
	b, forget := make([]byte, 64), floor.DeleteFlows()
	return &contender{name: series, round: func(context.Context, int) (time.Duration, error) {
		d, err := took(func() error {
			for range laneMany {
				if err := unix.Sendto(*from, b, 0, l.stranger()); err != nil {
					return err
				}
				if _, err := receive(l.sink, b); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			_, err = l.sock.Ask(forget)
		}
		return d / laneMany, err
	}}
}
