package docker

import (
	"context"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// boxes are ours: web, with published ports, and db on the bridge boxwire0.
type boxes struct {
	gw      *nat.NAT
	web, db *netns.NS
}

// network is the network of the boxes.
var network = nat.Network{
	Interface: "boxwire0", Masquerade: true,
	Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24"), netip.MustParsePrefix("fd30::/64")},
}

// ports are what web publishes.
var ports = []nat.Port{
	port(nat.TCP, "0.0.0.0:8080", "172.30.0.2:80"), port(nat.UDP, "0.0.0.0:8080", "172.30.0.2:80"),
	port(nat.TCP, "[::]:8080", "[fd30::2]:80"), port(nat.UDP, "[::]:8080", "[fd30::2]:80"),
}

func port(proto nat.Proto, host, box string) nat.Port {
	return nat.Port{Proto: proto, Host: netip.MustParseAddrPort(host), Box: netip.MustParseAddrPort(box), Owner: "web"}
}

// newBoxes wires the boxes and opens nothing of the other firewall.
func newBoxes(t *testing.T, m *machine.Machine) *boxes {
	t.Helper()
	ctx := t.Context()
	bridge, err := link.Create(ctx, m.NS, link.Spec{
		Name: "boxwire0", Up: true, Kind: link.Bridge{},
		Addrs: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24"), netip.MustParsePrefix("fd30::1/64")},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &boxes{}
	b.web = box(t, m.NS, bridge, "web", "172.30.0.2/24", "fd30::2/64")
	b.db = box(t, m.NS, bridge, "db", "172.30.0.3/24", "fd30::3/64")
	if b.gw, err = nat.Open(ctx, m.NS, nat.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.gw.Close() })
	if err := b.gw.AddNetwork(ctx, network); err != nil {
		t.Fatal(err)
	}
	if err := b.gw.Publish(ctx, ports...); err != nil {
		t.Fatal(err)
	}
	return b
}

// box makes a box that answers at port 80.
func box(t *testing.T, host *netns.NS, bridge link.Link, name string, addrs ...string) *netns.NS {
	t.Helper()
	ctx := t.Context()
	ns, err := netns.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	var prefixes []netip.Prefix
	for _, a := range addrs {
		prefixes = append(prefixes, netip.MustParsePrefix(a))
	}
	_, err = link.Create(ctx, host, link.Spec{
		Name: name, Up: true, Master: bridge.Ref(),
		Port: link.PortOptions{Hairpin: new(true)}, // dockerd sets net.bridge.bridge-nf-call-iptables
		Kind: link.Veth{Peer: link.Spec{NS: ns, Name: "eth0", Up: true, Addrs: prefixes}},
	})
	if err != nil {
		t.Fatal(err)
	}
	lo, err := link.Get(ctx, ns, "lo")
	if err == nil {
		err = lo.SetUp(ctx)
	}
	if err == nil {
		err = route.Add(ctx, ns, route.Default(netip.MustParseAddr("172.30.0.1")), route.Default(netip.MustParseAddr("fd30::1")))
	}
	if err != nil {
		t.Fatal(err)
	}
	reach.Serve(t, ns, name, ":80")
	return ns
}

// accept opens the other firewall for the boxes.
func (b *boxes) accept(t *testing.T) {
	t.Helper()
	if err := b.gw.AcceptForward(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// remove removes all of ours but the namespaces of the boxes.
func (b *boxes) remove(t *testing.T, m *machine.Machine) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	if err := b.gw.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "db", "boxwire0"} {
		l, err := link.Get(ctx, m.NS, name)
		if err == nil {
			err = l.Delete(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
