package wire

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// Check reports everything that keeps a fleet of this config from working here, and changes nothing: pools that overlap the host's
// addresses and routes, an MTU that is too small, a kernel without what the mode needs, a link or a UDP port that is another's. own
// are the prefixes that the node has claimed already: addresses and routes within them are its boxes'.
//
// Default routes do not count, nor do routes that refuse packets.
func (w *Wire) Check(ctx context.Context, cfg state.Config, own ...netip.Prefix) error {
	const op = "Check"
	if err := cfg.Validate(); err != nil {
		return w.fail(op, "config", err)
	}
	underlay, err := w.Underlay(ctx, cfg)
	errs := []error{err}
	if err == nil {
		errs = append(errs, w.checkMTU(op, cfg, underlay))
	}
	if cfg.Mode == state.WireGuard {
		_, err := w.privateKey()
		errs = append(errs, err)
	}
	errs = append(errs, w.CheckPools(ctx, cfg, own...))
	if err := w.checkKernel(ctx, op, cfg); err != nil {
		return errors.Join(append(errs, err)...)
	}
	_, err = w.existing(ctx, op, plan.Link(cfg, nil, 0))
	return errors.Join(append(errs, err, w.checkPort(ctx, op, cfg))...)
}

// CheckPools is the part of [Wire.Check] that is about the pools: it reports the host's addresses and routes that they overlap. It
// needs no underlay: an address of that which is in a pool makes it none.
func (w *Wire) CheckPools(ctx context.Context, cfg state.Config, own ...netip.Prefix) error {
	const op = "Check"
	links, err := link.List(ctx, w.ns, link.Filter{})
	if err != nil {
		return err
	}
	return errors.Join(w.checkAddrs(ctx, op, cfg, links, own), w.checkRoutes(ctx, op, cfg, links, own))
}

// checkMTU refuses an underlay whose packets leave too little room.
func (w *Wire) checkMTU(op string, cfg state.Config, underlay []plan.Underlay) error {
	mtu := plan.LinkMTU(cfg.Mode, underlay)
	for _, pool := range cfg.Pools {
		if least := plan.LeastMTU(pool.Addr()); mtu < least {
			u := slices.MaxFunc(underlay, func(a, b plan.Underlay) int { return a.MTU - b.MTU })
			return w.fail(op, "link "+u.Name, refuse.Input(
				"its MTU is %d, which leaves %d bytes to a packet in mode %s; the pool %v needs %d: raise it, or name another link to the nodes (-via)", u.MTU, mtu, cfg.Mode, pool, least))
		}
	}
	return nil
}

// checkAddrs refuses pools that the host's own addresses are in.
func (w *Wire) checkAddrs(ctx context.Context, op string, cfg state.Config, links []link.Link, own []netip.Prefix) error {
	addrs, err := link.ListAddrs(ctx, w.ns)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range addrs {
		name := nameOf(links, a.Link)
		if name == w.o.Link || within(a.Prefix, own) {
			continue
		}
		for _, pool := range cfg.Pools {
			if pool.Overlaps(a.Prefix) {
				errs = append(errs, w.fail(op, "pool "+pool.String(), refuse.Input("it overlaps the address %v of link %s: give the fleet a pool that no machine of it uses (-pool)", a.Prefix, name)))
			}
		}
	}
	return errors.Join(errs...)
}

// checkRoutes refuses pools that the host has routes to.
func (w *Wire) checkRoutes(ctx context.Context, op string, cfg state.Config, links []link.Link, own []netip.Prefix) error {
	var errs []error
	for r, err := range route.All(ctx, w.ns, route.Filter{Type: route.TypeUnicast}) {
		if err != nil {
			return err
		}
		// The kernel's own route to the subnet of an address is reported with the address.
		if r.Protocol == w.o.Owner || r.Protocol == route.ProtoKernel || r.Table == route.TableLocal || r.Dst.Bits() == 0 ||
			within(r.Dst, own) {
			continue
		}
		for _, pool := range cfg.Pools {
			if pool.Overlaps(r.Dst) {
				by := ""
				switch name := nameOf(links, r.Dev); name {
				case w.o.Link:
					continue
				case "": // a next-hop object, or several hops
				default:
					by = ", which leaves by link " + name
				}
				errs = append(errs, w.fail(op, "pool "+pool.String(), refuse.Input("it overlaps the route %s%s: give the fleet a pool that no machine of it uses (-pool)", r, by)))
			}
		}
	}
	return errors.Join(errs...)
}

func nameOf(links []link.Link, index int) string {
	for _, l := range links {
		if l.Index == index {
			return l.Name
		}
	}
	return ""
}

// within reports whether a prefix lies in one of the others.
func within(p netip.Prefix, in []netip.Prefix) bool {
	return slices.ContainsFunc(in, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) })
}

// checkKernel makes the link, and a route like those of the fleet, in a namespace of its own that ends with it.
func (w *Wire) checkKernel(ctx context.Context, op string, cfg state.Config) error {
	if pools := cfg.PoolsOf(netns.IPv6); len(pools) > 0 {
		has, err := w.HasIPv6(ctx)
		if err != nil {
			return err
		}
		if !has {
			return w.fail(op, "kernel", refuse.As(errors.ErrUnsupported,
				"it has no IPv6 (ipv6.disable=1, or net.ipv6.conf.default.disable_ipv6=1), and the fleet has the pool %v", pools[0]))
		}
	}
	trial, err := netns.New(ctx)
	if err != nil {
		return err
	}
	defer trial.Close()
	spec := plan.Link(cfg, nil, 1400)
	spec.Name = "trial0"
	l, err := link.Create(ctx, trial, spec)
	if err != nil {
		return w.fail(op, "kernel", err)
	}
	if _, ok := spec.Kind.(link.VXLAN); !ok {
		return nil
	}
	pool := cfg.Pools[0]
	err = route.Add(ctx, trial, route.Route{
		Dst: pool, Dev: l.Index, Encap: route.IPEncap{ID: uint64(cfg.VNI), Dst: netip.AddrFrom4([4]byte{192, 0, 2, 1})},
	})
	return w.fail(op, "kernel", err)
}

// checkPort refuses a UDP port that another link or program has, while the tunnel link is not there yet.
func (w *Wire) checkPort(ctx context.Context, op string, cfg state.Config) error {
	if cfg.Mode == state.Direct {
		return nil
	}
	if _, err := link.Get(ctx, w.ns, w.o.Link); err == nil {
		return nil
	}
	if err := w.vxlanOnPort(ctx, op, cfg.Port); err != nil {
		return err
	}
	for _, network := range []string{"udp4", "udp6"} {
		c, err := w.ns.ListenPacket(ctx, network, ":"+strconv.Itoa(int(cfg.Port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			return w.fail(op, "UDP port "+strconv.Itoa(int(cfg.Port)), refuse.As(os.ErrExist, "another program or tunnel of this host has it: give the fleet another (-port): %w", err))
		}
		if err == nil {
			c.Close()
		}
	}
	return nil
}

// vxlanOnPort reports a VXLAN link that has the UDP port. A second one is possible only with the same settings, and never in
// external mode.
func (w *Wire) vxlanOnPort(ctx context.Context, op string, port uint16) error {
	links, err := link.List(ctx, w.ns, link.Filter{Kind: "vxlan"})
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Name == w.o.Link {
			continue
		}
		d, err := l.Details(ctx)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if v, ok := d.Spec.Kind.(link.VXLAN); ok && v.Port == port {
			return w.fail(op, "UDP port "+strconv.Itoa(int(port)), refuse.As(os.ErrExist,
				"the VXLAN link %s (%s) has it: give the fleet another port (-port)", l.Name, settings(v)))
		}
	}
	return nil
}

// settings are those by which VXLAN links on one port tell their packets apart, as ip-link(8) writes them.
func settings(v link.VXLAN) string {
	var all []string
	if v.ID != nil && !v.External {
		all = append(all, "id "+strconv.FormatUint(uint64(*v.ID), 10))
	}
	for _, s := range []struct {
		is   bool
		name string
	}{{v.External, "external"}, {v.GPE, "gpe"}, {v.GBP, "gbp"}} {
		if s.is {
			all = append(all, s.name)
		}
	}
	return strings.Join(all, " ")
}

// explain adds the cause that is near when the tunnel link cannot be made.
func (w *Wire) explain(ctx context.Context, op string, cfg state.Config, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, os.ErrExist) {
		return err
	}
	if _, ok := plan.Link(cfg, nil, 0).Kind.(link.VXLAN); !ok {
		return err
	}
	if cause := w.vxlanOnPort(ctx, op, cfg.Port); cause != nil {
		return errors.Join(cause, err)
	}
	return err
}
