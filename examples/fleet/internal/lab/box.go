//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// BoxBridge is the name of the bridge that [Host.Box] plugs boxes into.
const BoxBridge = "boxes0"

// BoxSpec says what a box is. Addrs is required.
type BoxSpec struct {
	// Addrs are the addresses of the box, each with the length of its host's prefix: 10.100.7.2/24. The first address of
	// the prefix, 10.100.7.1, is the host's on its bridge and the box's gateway. It cannot be the box's.
	Addrs []netip.Prefix

	MTU int // of the box's link; 0 is 1500
}

// A Box is a namespace behind a bridge of a host, as a container is.
type Box struct {
	Name  string // "host1-box1"
	NS    *netns.NS
	Host  *Host
	Addrs []netip.Prefix // as in the BoxSpec
}

// Box makes a box. The first one on a host also makes the bridge, and a prefix that the bridge does not have yet gives it
// the gateway's address. Packets pass between box and host when it returns. The bridge forwards, as that of any container host
// does. The other links are the agent's work, or [Host.Forward]'s.
func (h *Host) Box(ctx context.Context, spec BoxSpec) (*Box, error) {
	if len(spec.Addrs) == 0 {
		return nil, fmt.Errorf("lab: box on %s: no address: %w", h.Name, os.ErrInvalid)
	}
	var gateways []netip.Prefix
	var routes []route.Route
	for _, p := range spec.Addrs {
		gw := p.Masked().Addr().Next()
		if gw == p.Addr() {
			return nil, fmt.Errorf("lab: box on %s: %v is the gateway's: %w", h.Name, p, os.ErrInvalid)
		}
		gateways = append(gateways, netip.PrefixFrom(gw, p.Bits()))
		routes = append(routes, route.Default(gw))
	}
	bridge, err := link.Ensure(ctx, h.NS, link.Spec{
		Name: BoxBridge, Up: true, Addrs: gateways, Kind: link.Bridge{MulticastSnooping: new(false)},
		IPv4: link.IPv4Conf{Forwarding: new(true)},
	})
	if err != nil {
		return nil, err
	}
	if hasIPv6() { // a kernel before 6.17 has the switch for all links alone
		err := h.NS.SetSysctl(ctx, "net.ipv6.conf."+BoxBridge+".force_forwarding", "1")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	h.boxes++
	b := &Box{Name: fmt.Sprintf("%s-box%d", h.Name, h.boxes), Host: h, Addrs: spec.Addrs}
	if b.NS, err = h.lab.newSpace(ctx, b.Name); err != nil {
		return nil, err
	}
	port, err := link.Create(ctx, h.NS, link.Spec{
		Name: fmt.Sprintf("box%d", h.boxes), Up: true, Master: bridge.Ref(), MTU: spec.MTU,
		Kind: link.Veth{Peer: link.Spec{NS: b.NS, Name: "eth0", Up: true, Addrs: spec.Addrs}},
	})
	if err != nil {
		return nil, err
	}
	if err := route.Add(ctx, b.NS, routes...); err != nil {
		return nil, err
	}
	return b, port.WaitReachable(ctx)
}

// Addr is the first address of the box.
func (b *Box) Addr() netip.Addr { return b.Addrs[0].Addr() }

func (b *Box) String() string { return b.Name }
