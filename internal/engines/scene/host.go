package scene

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// The bridges and their networks. Boxes of the second one are internal.
const (
	Front = "boxwire0"
	Inner = "boxwire1"
)

// Host is a machine with boxes: some in the network Front, of which the first is published, and one in
// Inner.
type Host struct {
	M       *machine.Machine
	NS, LAN *netns.NS
	NAT     *nat.NAT
	Boxes   []Box // of Front, and the last of Inner
	Held    *Held

	Links []link.Link // as they were made, without the ends in boxes
	state nat.State
}

// Box is one of ours.
type Box struct {
	Name         string
	NS           *netns.NS
	Addr4, Addr6 netip.Addr
}

// New wires n boxes of Front and one of Inner, each with a server at port 80 and at port 7, and opens
// connections that are held. Front is masqueraded.
func New(t testing.TB, m *machine.Machine, n int) *Host {
	t.Helper()
	return newHost(t, m, n, nat.Network{Masquerade: true})
}

// NewSNAT is New with the host's addresses in Network.SNAT, and no masquerade.
func NewSNAT(t testing.TB, m *machine.Machine, n int) *Host {
	t.Helper()
	return newHost(t, m, n, nat.Network{SNAT: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:1::2")}})
}

// NeedIPv6 skips the test where there is no IPv6.
func NeedIPv6(t testing.TB) {
	t.Helper()
	if !netnstest.HasIPv6() {
		t.Skip("scene: there is no IPv6 here")
	}
}

func newHost(t testing.TB, m *machine.Machine, n int, front nat.Network) *Host {
	t.Helper()
	NeedIPv6(t)
	h := &Host{M: m, NS: m.NS, LAN: m.LAN}
	front.Interface, front.Subnets = Front, prefixes("172.30.0.0/24", "fd30::/64")
	err := h.wire(t, n, front)
	if err == nil {
		err = h.open(t.Context())
	}
	if err != nil {
		t.Fatalf("scene: %v", err)
	}
	t.Cleanup(func() { h.NAT.Close() })
	// The neighbour knows the way to the boxes, and must not reach them.
	err = route.Add(t.Context(), h.LAN,
		route.To(netip.MustParsePrefix("172.30.0.0/16"), netip.MustParseAddr("192.0.2.2")),
		route.To(netip.MustParsePrefix("fd30::/16"), netip.MustParseAddr("2001:db8:1::2")))
	if err != nil {
		t.Fatalf("scene: %v", err)
	}
	reach.Serve(t, h.LAN, "lan", ":80")
	reach.Serve(t, h.NS, "host", ":81")
	h.hold(t)
	return h
}

// wire makes bridges and boxes.
func (h *Host) wire(t testing.TB, n int, front nat.Network) error {
	networks := []nat.Network{
		front,
		{Interface: Inner, Subnets: prefixes("172.30.1.0/24", "fd30:1::/64"), Internal: true},
	}
	for i, network := range networks {
		gateways := []netip.Prefix{first(network.Subnets[0]), first(network.Subnets[1])}
		br, err := link.Create(t.Context(), h.NS, link.Spec{Name: network.Interface, Up: true, Kind: link.Bridge{}, Addrs: gateways})
		if err != nil {
			return err
		}
		h.Links = append(h.Links, br)
		count, name := n, "box"
		if i == 1 {
			count, name = 1, "inner"
		}
		addrs := slices.Clone(gateways)
		for k := range count {
			for j := range addrs {
				addrs[j] = netip.PrefixFrom(addrs[j].Addr().Next(), addrs[j].Bits())
			}
			if err := h.box(t, fmt.Sprint(name, k), br, addrs, gateways); err != nil {
				return err
			}
		}
	}
	h.state = nat.State{Networks: networks, Ports: []nat.Port{
		published(nat.TCP, "0.0.0.0:8080", h.Boxes[0].Addr4), published(nat.UDP, "0.0.0.0:8080", h.Boxes[0].Addr4),
		published(nat.TCP, "[::]:8080", h.Boxes[0].Addr6), published(nat.UDP, "[::]:8080", h.Boxes[0].Addr6),
	}}
	return nil
}

// box makes one box, and waits until no packet is lost.
func (h *Host) box(t testing.TB, name string, br link.Link, addrs, gateways []netip.Prefix) error {
	ctx := t.Context()
	ns, err := netns.New(ctx)
	if err != nil {
		return err
	}
	t.Cleanup(func() { ns.Close() })
	outside, err := link.Create(ctx, h.NS, link.Spec{
		Name: "veth-" + name, Up: true, Master: br.Ref(), Port: link.PortOptions{Hairpin: new(true)},
		Kind: link.Veth{Peer: link.Spec{NS: ns, Name: "eth0", Up: true, Addrs: addrs}},
	})
	if err != nil {
		return err
	}
	lo, err := link.Get(ctx, ns, "lo")
	if err == nil {
		err = lo.SetUp(ctx)
	}
	if err == nil {
		err = route.Add(ctx, ns, route.Default(gateways[0].Addr()), route.Default(gateways[1].Addr()))
	}
	if err == nil {
		err = outside.WaitReachable(ctx)
	}
	h.Links = append(h.Links, outside)
	h.Boxes = append(h.Boxes, Box{Name: name, NS: ns, Addr4: addrs[0].Addr(), Addr6: addrs[1].Addr()})
	reach.Serve(t, ns, name, ":80")
	return err
}

// open begins as a program does that was started, upgraded or killed.
func (h *Host) open(ctx context.Context) (err error) {
	if h.NAT, err = nat.Open(ctx, h.NS, nat.Options{}); err != nil {
		return err
	}
	return h.NAT.Sync(ctx, h.state)
}

// Reopen is an upgrade of ours: the old program ends and a new one begins.
func (h *Host) Reopen(t testing.TB) {
	t.Helper()
	err := h.NAT.Close()
	if err == nil {
		err = h.open(t.Context())
	}
	if err != nil {
		t.Fatalf("scene: %v", err)
	}
}

// Remove takes away all that New has made on the host.
func (h *Host) Remove(t testing.TB) {
	t.Helper()
	h.Held.close()
	err := errors.Join(h.NAT.Delete(t.Context()), link.DeleteAll(t.Context(), h.Links...))
	if err != nil {
		t.Errorf("scene: %v", err)
	}
}

// table is who reaches whom: the LAN reaches what is published, an internal box the host and
// nothing else.
const table = `
	              lan      host     box0        box1        inner0
	tcp pub4      box0     box0     box0        box0        -
	udp pub4      box0     box0     box0        box0        -
	tcp pub6      box0     box0     box0        box0        -
	tcp box0v4    -        box0     .           box0        -
	tcp box1v4    -        box1     box1        .           -
	udp box1v6    -        box1     box1        .           -
	tcp inner0v4  -        inner0   -           -           .
	tcp inner0v6  -        inner0   -           -           .
	tcp lan4      .        lan      lan         lan         -
	udp lan4      .        lan      lan         lan         -
	tcp lan6      .        lan      lan         lan         -
	tcp host4     .        .        host        host        .
`

// Check checks who reaches whom, that the held connections live, and that the links are as they were made.
func (h *Host) Check(t testing.TB, when string) {
	t.Helper()
	h.CheckLinks(t, when)
	h.Held.Check(t, when)
	h.CheckReach(t, when, table)
}

// During does something, and checks who reaches whom meanwhile, and all that Check does afterwards.
func (h *Host) During(t testing.TB, when string, do func()) {
	t.Helper()
	w := h.world()
	w.During(t, when, table, do)
	h.CheckLinks(t, when)
	h.Held.Check(t, when)
	w.Check(t, when, table)
}

// CheckReach checks who reaches whom, see [reach.World.Check]. The places are lan, host and the boxes.
func (h *Host) CheckReach(t testing.TB, when, table string) {
	t.Helper()
	w := h.world()
	w.Check(t, when, table)
}

// world is the names of the tables.
func (h *Host) world() reach.World {
	w := reach.World{
		Places: map[string]*netns.NS{"lan": h.LAN, "host": h.NS},
		Targets: map[string]string{
			"pub4": "192.0.2.2:8080", "pub6": "[2001:db8:1::2]:8080",
			"run4": "192.0.2.2:8090", "run6": "[2001:db8:1::2]:8090", "direct": "172.30.2.9:80",
			"lan4": "192.0.2.1:80", "lan6": "[2001:db8:1::1]:80", "host4": "172.30.0.1:81",
		},
	}
	for _, b := range h.Boxes {
		w.Places[b.Name] = b.NS
		w.Targets[b.Name+"v4"] = netip.AddrPortFrom(b.Addr4, 80).String()
		w.Targets[b.Name+"v6"] = netip.AddrPortFrom(b.Addr6, 80).String()
	}
	return w
}

// CheckLinks checks that the links have the names, hardware addresses, masters and state that they were made with.
func (h *Host) CheckLinks(t testing.TB, when string) {
	t.Helper()
	for _, made := range h.Links {
		now, err := link.ByIndex(t.Context(), h.NS, made.Index)
		if err != nil {
			t.Errorf("scene: %s: %v", when, err)
			continue
		}
		if now.Name != made.Name || now.MAC.String() != made.MAC.String() || now.Master != made.Master || now.Up != made.Up || now.MTU != made.MTU {
			t.Errorf("scene: %s: link %s has hardware address %s, master %d, MTU %d, is up: %v; it was made as %s with %s, %d, %d, %v", when,
				now.Name, now.MAC, now.Master, now.MTU, now.Up, made.Name, made.MAC, made.Master, made.MTU, made.Up)
		}
	}
}

func published(proto nat.Proto, host string, box netip.Addr) nat.Port {
	return nat.Port{Proto: proto, Host: netip.MustParseAddrPort(host), Box: netip.AddrPortFrom(box, 80), Owner: "box0"}
}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// first is the first address of a subnet.
func first(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Addr().Next(), p.Bits()) }
