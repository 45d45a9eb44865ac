//go:build linux

// Package boxes makes boxes of this library on a host of a scene.
package boxes

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// Host is one that has boxes on the bridge boxwire0: 172.30.0.1/24 and fd30::1/64.
type Host struct {
	NS     *netns.NS
	NAT    *nat.NAT
	Bridge link.Link
	Net    nat.Network

	ports []nat.Port
}

// State is the network and the published ports, for NAT.Sync.
func (h *Host) State() nat.State {
	return nat.State{Networks: []nat.Network{h.Net}, Ports: h.ports}
}

// New makes the bridge and the network.
func New(t testing.TB, ns *netns.NS) *Host {
	t.Helper()
	ctx := t.Context()
	h := &Host{NS: ns, Net: nat.Network{
		Interface: "boxwire0", Masquerade: true,
		Subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24"), netip.MustParsePrefix("fd30::/64")},
	}}
	var err error
	h.Bridge, err = link.Create(ctx, ns, link.Spec{
		Name: "boxwire0", Up: true, Kind: link.Bridge{},
		Addrs: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24"), netip.MustParsePrefix("fd30::1/64")},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.NAT, err = nat.Open(ctx, ns, nat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.NAT.Close() })
	Bridged(t, ns, false)
	if err := h.NAT.AddNetwork(ctx, h.Net); err != nil {
		t.Fatal(err)
	}
	return h
}

// Add makes the box 172.30.0.n, fd30::n. It answers on port 80. The ports of the host that are
// given lead there, over TCP and UDP.
func (h *Host) Add(t testing.TB, name string, n uint8, ports ...uint16) *netns.NS {
	t.Helper()
	ctx := t.Context()
	box, err := netns.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { box.Close() })
	addrs := []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("172.30.0.%d/24", n)), netip.MustParsePrefix(fmt.Sprintf("fd30::%x/64", n))}
	if _, err := link.Create(ctx, h.NS, link.Spec{
		Name: name + "0", Up: true, Master: h.Bridge.Ref(), Port: link.PortOptions{Hairpin: new(true)},
		Kind: link.Veth{Peer: link.Spec{NS: box, Name: "eth0", Up: true, Addrs: addrs}},
	}); err != nil {
		t.Fatal(err)
	}
	lo, err := link.Get(ctx, box, "lo")
	if err == nil {
		err = lo.SetUp(ctx)
	}
	if err == nil {
		err = route.Add(ctx, box, route.Default(netip.MustParseAddr("172.30.0.1")), route.Default(netip.MustParseAddr("fd30::1")))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range ports {
		h.Publish(t, name, n, port, 80)
	}
	reach.Serve(t, box, name, ":80")
	return box
}

// Publish publishes a port of box n on all addresses, over TCP and UDP.
func (h *Host) Publish(t testing.TB, owner string, n uint8, port, boxPort uint16) {
	t.Helper()
	for host, box := range map[netip.Addr]string{netip.IPv4Unspecified(): fmt.Sprintf("172.30.0.%d", n), netip.IPv6Unspecified(): fmt.Sprintf("fd30::%x", n)} {
		for _, proto := range []nat.Proto{nat.TCP, nat.UDP} {
			p := nat.Port{
				Proto: proto, Host: netip.AddrPortFrom(host, port), Box: netip.AddrPortFrom(netip.MustParseAddr(box), boxPort), Owner: owner,
			}
			if err := h.NAT.Publish(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			h.ports = append(h.ports, p)
		}
	}
}

// Bridged sets whether the firewall of a host sees what its bridges forward, as the module
// br_netfilter does by default. It returns false where the kernel has no such module loaded.
func Bridged(t testing.TB, ns *netns.NS, on bool) bool {
	t.Helper()
	value := map[bool]string{true: "1", false: "0"}[on]
	for _, key := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"} {
		err := ns.SetSysctl(t.Context(), key, value)
		if errors.Is(err, os.ErrNotExist) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return true
}

// Route adds routes by way of a gateway.
func Route(t testing.TB, ns *netns.NS, gateway string, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		if err := route.Add(t.Context(), ns, route.To(netip.MustParsePrefix(p), netip.MustParseAddr(gateway))); err != nil {
			t.Fatal(err)
		}
	}
}
