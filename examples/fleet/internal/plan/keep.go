package plan

import (
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/route"
)

// keep plans the kept routes: those that no other route has the place of, and that still lead somewhere.
func (p *planning) keep(routes []route.Route) {
	type place struct {
		dst    netip.Prefix
		metric uint32
	}
	has := make(map[place]bool, len(p.plan.Routes)+len(routes))
	for _, r := range p.plan.Routes {
		has[place{r.Dst, metric(r)}] = true
	}
	var kept []route.Route
	for _, r := range routes {
		at := place{r.Dst, metric(r)}
		if _, taken := p.taken[r.Dst]; taken || has[at] || !p.follow(&r) {
			continue
		}
		has[at] = true
		r.Protocol, r.Flags = 0, 0
		kept = append(kept, r)
	}
	slices.SortFunc(kept, func(a, b route.Route) int { return a.Dst.Compare(b.Dst) })
	p.plan.Routes = append(p.plan.Routes, kept...)
	for _, r := range kept {
		if r.Type == route.TypeUnicast || r.Type == 0 {
			p.plan.Kept = append(p.plan.Kept, r.Dst)
		}
	}
}

// follow sets the link of a kept route to what it is now. It reports false if the link is gone.
func (p *planning) follow(r *route.Route) bool {
	switch {
	case r.Type != 0 && r.Type != route.TypeUnicast:
		return true
	case r.Via.IsValid():
		return slices.ContainsFunc(p.self.Underlay, func(u Underlay) bool { return u.Index == r.Dev })
	}
	r.Dev = p.self.Tunnel
	return true
}

// metric is a route's metric as the kernel has it.
func metric(r route.Route) uint32 {
	if r.Metric == 0 && r.Dst.Addr().Is6() {
		return 1024
	}
	return r.Metric
}
