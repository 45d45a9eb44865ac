package wire

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/route"
)

// Underlay returns the links that lead to peers, with their addresses: those that Options names; else those that default routes
// leave by, the lowest metric first; else all that have an address. Links that are down do not count, nor do addresses in the fleet's
// pools, link-local ones, and those of IPv6 that are temporary, deprecated or duplicates. No such link is os.ErrNotExist.
func (w *Wire) Underlay(ctx context.Context, cfg state.Config) ([]plan.Underlay, error) {
	const op = "Underlay"
	links, err := link.List(ctx, w.ns, link.Filter{})
	if err != nil {
		return nil, err
	}
	addrs, err := link.ListAddrs(ctx, w.ns)
	if err != nil {
		return nil, err
	}
	names := w.o.Underlay
	if names == nil {
		if names, err = w.defaultLinks(ctx, links); err != nil {
			return nil, err
		}
	}
	var all []plan.Underlay
	follow := map[int]bool{}
	for _, l := range links {
		u := plan.Underlay{Index: l.Index, Name: l.Name, MTU: l.MTU}
		for _, a := range addrs {
			if a.Link == l.Index && counts(a, cfg) {
				u.Addrs = append(u.Addrs, a.Prefix)
			}
		}
		if l.Name == w.o.Link {
			continue
		}
		// One that is down now may come back, and its IPv6 addresses only then.
		if len(u.Addrs) > 0 || slices.Contains(w.o.Underlay, l.Name) || w.isUnderlay(l.Index) {
			follow[l.Index] = true
		}
		if l.Up && len(u.Addrs) > 0 && (len(names) == 0 || slices.Contains(names, l.Name)) {
			all = append(all, u)
		}
	}
	slices.SortStableFunc(all, func(a, b plan.Underlay) int { return slices.Index(names, a.Name) - slices.Index(names, b.Name) })
	w.mu.Lock()
	w.underlay = follow
	w.mu.Unlock()
	if len(all) == 0 {
		if w.o.Underlay != nil {
			err = refuse.As(os.ErrNotExist, "none of the links %q (-via) is up and has an address that leads to other machines", w.o.Underlay)
		} else {
			err = refuse.As(os.ErrNotExist, "no link is up and has an address that leads to other machines: waiting for one; -via names it where no default route does")
		}
		return nil, w.fail(op, "links", err)
	}
	return all, nil
}

// counts reports whether an address of this host can be one that peers reach it by.
func counts(a link.Addr, cfg state.Config) bool {
	ip := a.Prefix.Addr()
	if ip.Is6() && a.Flags&(link.AddrSecondary|link.AddrDeprecated|link.AddrDADFailed) != 0 { // secondary is temporary here
		return false
	}
	return !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !slices.ContainsFunc(cfg.Pools, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// defaultLinks are the names of the links that default routes leave by, the lowest metric first.
func (w *Wire) defaultLinks(ctx context.Context, links []link.Link) ([]string, error) {
	var defaults []route.Route
	for _, f := range []route.Family{route.IPv4, route.IPv6} {
		routes, err := route.List(ctx, w.ns, route.Filter{Family: f, Table: route.TableMain, Type: route.TypeUnicast})
		if err != nil {
			return nil, err
		}
		at := len(defaults)
		for _, r := range routes {
			if r.Dst.Bits() == 0 {
				defaults = append(defaults, r)
			}
		}
		slices.SortStableFunc(defaults[at:], func(a, b route.Route) int { return int(int64(a.Metric) - int64(b.Metric)) })
	}
	names := []string{}
	for _, r := range defaults {
		for _, l := range links {
			if uses(r, l.Index) && !slices.Contains(names, l.Name) {
				names = append(names, l.Name)
			}
		}
	}
	return names, nil
}

// uses reports whether a route leaves by a link.
func uses(r route.Route, index int) bool {
	return r.Dev == index || slices.ContainsFunc(r.Hops, func(h route.Hop) bool { return h.Dev == index })
}

// HasIPv6 reports whether links that are made now have IPv6: the kernel has it, and net.ipv6.conf.default.disable_ipv6 is 0.
func (w *Wire) HasIPv6(ctx context.Context) (bool, error) {
	value, err := w.ns.Sysctl(ctx, "net.ipv6.conf.default.disable_ipv6")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return value == "0", err
}
