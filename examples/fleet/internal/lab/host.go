//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// A Host is a namespace that plays a machine.
type Host struct {
	Name    string    // "host1"
	NS      *netns.NS // the host's own
	Segment int       // number of its segment, from 0
	Dir     string    // a directory for the state of what runs on the host

	lab    *Lab
	seg    *segment
	uplink string // its name on the host
	port   string // name of the switch's port
	addrs  [2]netip.Prefix
	mtu    int
	boxes  int
}

// AddHost plugs another host into a segment, whose number begins at 0. Its traffic flows when AddHost returns. Names go on
// from the last one: host4.
func (l *Lab) AddHost(ctx context.Context, number int) (*Host, error) {
	if number < 0 || number >= len(l.segments) {
		return nil, fmt.Errorf("lab: host on segment %d: want 0 to %d: %w", number, len(l.segments)-1, os.ErrInvalid)
	}
	seg := l.segments[number]
	l.mu.Lock()
	h := &Host{
		Name: fmt.Sprintf("host%d", len(l.Hosts)+1), Segment: number,
		lab: l, seg: seg, uplink: "eth0", mtu: l.options.MTU,
	}
	var err error
	if h.addrs, err = seg.take(); err == nil {
		l.Hosts = append(l.Hosts, h)
	}
	l.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	h.port, h.Dir = h.Name, filepath.Join(l.Dir, h.Name)
	if err := os.Mkdir(h.Dir, 0o700); err != nil {
		return nil, err
	}
	if h.NS, err = l.newSpace(ctx, h.Name); err != nil {
		return nil, err
	}
	return h, h.plug(ctx, seg.core)
}

// plug makes the uplink, a port of a bridge of the switch.
func (h *Host) plug(ctx context.Context, bridge link.Link) error {
	port, err := link.Create(ctx, h.seg.ns, link.Spec{
		Name: h.port, Up: true, Master: bridge.Ref(), MTU: h.mtu,
		IPv6: link.IPv6Conf{AddrGenMode: noLinkLocal()},
		Kind: link.Veth{Peer: link.Spec{NS: h.NS, Name: h.uplink, Up: true, Addrs: valid(h.addrs)}},
	})
	if err != nil {
		return err
	}
	if err := h.defaultRoutes(ctx); err != nil {
		return err
	}
	return port.WaitReachable(ctx)
}

// defaultRoutes leads to the router what the host has no other route for.
func (h *Host) defaultRoutes(ctx context.Context) error {
	var routes []route.Route
	for _, gw := range valid(h.seg.gateway) {
		routes = append(routes, route.Default(gw.Addr()))
	}
	return route.Replace(ctx, h.NS, routes...)
}

// Uplink is the name of the host's link to the switch, "eth0" at first.
func (h *Host) Uplink() string { return h.uplink }

// Addr4 is the address of the uplink, with the length of the segment's prefix.
func (h *Host) Addr4() netip.Prefix { return h.addrs[0] }

// Addr6 is Addr4 for IPv6: the zero Prefix where there is no IPv6.
func (h *Host) Addr6() netip.Prefix { return h.addrs[1] }

// Addrs are the addresses that the host has, IPv4 first.
func (h *Host) Addrs() []netip.Addr {
	var out []netip.Addr
	for _, p := range valid(h.addrs) {
		out = append(out, p.Addr())
	}
	return out
}

func (h *Host) String() string { return h.Name }

// switchPort is the host's port of the switch.
func (h *Host) switchPort(ctx context.Context) (link.Link, error) {
	return link.Get(ctx, h.seg.ns, h.port)
}

// Cut takes the host off the network: the switch's port goes down, and the uplink loses its carrier. When it returns, no
// packet passes. Cutting twice is fine.
func (h *Host) Cut(ctx context.Context) error {
	port, err := h.switchPort(ctx)
	if err != nil {
		return err
	}
	return port.SetDown(ctx)
}

// Heal undoes Cut. Packets pass when it returns.
func (h *Host) Heal(ctx context.Context) error {
	port, err := h.switchPort(ctx)
	if err != nil {
		return err
	}
	if err := port.SetUp(ctx); err != nil {
		return err
	}
	return port.WaitReachable(ctx)
}

// SetMTU gives the uplink another MTU, and the switch's port with it.
func (h *Host) SetMTU(ctx context.Context, mtu int) error {
	if err := h.SetPathMTU(ctx, mtu); err != nil {
		return err
	}
	uplink, err := link.Get(ctx, h.NS, h.uplink)
	if err != nil {
		return err
	}
	_, err = uplink.Update(ctx, link.Spec{MTU: mtu})
	return err
}

// SetPathMTU makes the switch drop in silence what is longer on its way to the host. The host's own MTU stays. It is what a
// wrong MTU of a switch looks like.
func (h *Host) SetPathMTU(ctx context.Context, mtu int) error {
	port, err := h.switchPort(ctx)
	if err != nil {
		return err
	}
	_, err = port.Update(ctx, link.Spec{MTU: mtu})
	if err == nil {
		h.mtu = mtu
	}
	return err
}

// ChangeAddrs gives the uplink other addresses in place of those it has, at most one of each family. Without arguments they
// are the next ones of the segment that no host has had. The neighbours are told, as a host that comes up tells them.
func (h *Host) ChangeAddrs(ctx context.Context, addrs ...netip.Prefix) error {
	var want [2]netip.Prefix
	for _, p := range addrs {
		family := 0
		if p.Addr().Is6() {
			family = 1
		}
		if want[family].IsValid() {
			return fmt.Errorf("lab: %s: two addresses of a family: %v and %v: %w", h.Name, want[family], p, os.ErrInvalid)
		}
		want[family] = p
	}
	if len(addrs) == 0 {
		h.lab.mu.Lock()
		next, err := h.seg.take()
		h.lab.mu.Unlock()
		if err != nil {
			return fmt.Errorf("lab: %s: %w", h.Name, err)
		}
		want = next
	}
	uplink, err := link.Get(ctx, h.NS, h.uplink)
	if err != nil {
		return err
	}
	for family, to := range want {
		from := h.addrs[family]
		if !to.IsValid() || to == from {
			continue
		}
		// First, because the kernel deletes the other addresses of a subnet with the first one (promote_secondaries).
		if from.IsValid() {
			if err := uplink.DeleteAddrs(ctx, from); err != nil {
				return err
			}
		}
		if err := uplink.AddPrefixes(ctx, to); err != nil {
			return err
		}
		h.addrs[family] = to
	}
	if err := h.defaultRoutes(ctx); err != nil { // IPv4's went with the last address of the gateway's subnet
		return err
	}
	return uplink.Announce(ctx, h.Addrs()...)
}

// RenameUplink gives the uplink another name. Before Linux 6.2 it goes down for that; afterwards it has its addresses and
// default routes again.
func (h *Host) RenameUplink(ctx context.Context, name string) error {
	uplink, err := link.Get(ctx, h.NS, h.uplink)
	if err != nil {
		return err
	}
	if err := uplink.SetDown(ctx); err != nil {
		return err
	}
	if uplink, err = uplink.Update(ctx, link.Spec{Name: name}); err != nil {
		return err
	}
	h.uplink = name
	if err := uplink.SetUp(ctx); err != nil {
		return err
	}
	return h.restore(ctx, uplink)
}

// restore brings back what a link loses that was down: IPv6 addresses, and routes.
func (h *Host) restore(ctx context.Context, uplink link.Link) error {
	var addrs []link.Addr
	for _, p := range valid(h.addrs) {
		addrs = append(addrs, link.StaticAddr(p))
	}
	if err := uplink.ReplaceAddrs(ctx, addrs...); err != nil {
		return err
	}
	if err := h.defaultRoutes(ctx); err != nil {
		return err
	}
	if err := uplink.WaitAddr(ctx, h.Addrs()...); err != nil {
		return err
	}
	return uplink.WaitReachable(ctx)
}

// ReplaceUplink takes the uplink out and plugs in a new one with another name, index and hardware address, and with the same
// addresses, as when a network card is exchanged.
func (h *Host) ReplaceUplink(ctx context.Context, name string) error {
	port, err := h.switchPort(ctx)
	if err != nil {
		return err
	}
	bridge, err := link.ByIndex(ctx, h.seg.ns, port.Master)
	if err != nil {
		return err
	}
	if err := port.Delete(ctx); err != nil { // the other end goes with it
		return err
	}
	h.uplink = name
	if err := h.plug(ctx, bridge); err != nil {
		return err
	}
	uplink, err := link.Get(ctx, h.NS, h.uplink)
	if err != nil {
		return err
	}
	return uplink.Announce(ctx, h.Addrs()...)
}
