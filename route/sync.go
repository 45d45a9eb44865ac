package route

import "github.com/boxwire/boxwire/internal/refuse"

// Changes counts what a sync did.
type Changes struct {
	Added, Replaced, Deleted int
}

// checkOwner refuses the protocols that have no single owner: the kernel's own, and boot,
// which ip-route(8) writes by default.
func checkOwner(p Protocol) error {
	if err := p.check(); err != nil {
		return err
	}
	switch p {
	case 0:
		return refuse.Input("no owner protocol is given")
	case ProtoUnspec, ProtoRedirect, ProtoKernel, ProtoBoot, ProtoRA:
		return refuse.Input("the protocol %s is reserved (linux/rtnetlink.h): it cannot be an owner", p)
	}
	return nil
}

// own gives the item the owner's protocol.
func own(have *Protocol, owner Protocol) error {
	if *have != 0 && *have != owner {
		return refuse.Input("its protocol is %s, not the owner's %s", *have, owner)
	}
	*have = owner
	return nil
}

// as returns the wanted route with what the kernel has filled in, to be compared
// with what it has.
func (r Route) as(have *Route) Route {
	r = r.normal()
	if r.Via.IsValid() && r.Dev == 0 {
		r.Dev = have.Dev
	}
	if len(r.Hops) == len(have.Hops) && len(r.Hops) > 0 {
		hops := make([]Hop, len(r.Hops))
		for i, h := range r.Hops {
			if h.Dev == 0 {
				h.Dev = have.Hops[i].Dev
			}
			hops[i] = h
		}
		r.Hops = hops
	}
	return r
}

// joinable says whether the route is one that IPv6 can make a hop of a multipath
// route of; Replace replaces only one that is, or is not, likewise.
func (r *Route) joinable() bool {
	return r.NextHop == 0 && (r.Via.IsValid() || len(r.Hops) > 0 && r.Hops[0].Via.IsValid())
}
