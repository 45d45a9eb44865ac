//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// Host is a node's kernel, as the probes look at it.
type Host struct {
	NS     *netns.NS
	Tunnel string         // the tunnel link, "fl0"
	Owner  route.Protocol // of the fleet's routes
	Port   uint16         // UDP port of the tunnel
	Hidden bool           // the tunnel encrypts: WireGuard
	Ask    uint16         // UDP port of the responders; 0 is Port + 1
}

func (h Host) ask() uint16 {
	if h.Ask != 0 {
		return h.Ask
	}
	return h.Port + 1
}

// tunnelIndex is the index of the tunnel link, 0 if there is none.
func (h Host) tunnelIndex(ctx context.Context) (int, error) {
	l, err := link.Get(ctx, h.NS, h.Tunnel)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return l.Index, err
}

// way is how packets to an overlay address leave a host.
type way struct {
	cause  Cause // "" if the way is as it should be
	text   string
	tunnel int        // index of the tunnel link
	bare   bool       // the packets leave as they are: the peer is on the same link
	outer  netip.Addr // where the route leads: the peer's endpoint; invalid for WireGuard
	src    netip.Addr // the source that the kernel chooses
}

// wayTo looks at the tunnel link and at the route to an address of the overlay, and sends nothing. If endpoints are given, the
// route must lead to one of them.
func (h Host) wayTo(ctx context.Context, to netip.Addr, endpoints []netip.Addr) (way, error) {
	l, err := link.Get(ctx, h.NS, h.Tunnel)
	if errors.Is(err, os.ErrNotExist) {
		return way{cause: LinkMissing, text: fmt.Sprintf("there is no link %s", h.Tunnel)}, nil
	} else if err != nil {
		return way{}, err
	}
	if !l.Up {
		return way{cause: LinkDown, text: fmt.Sprintf("link %s is down", h.Tunnel), tunnel: l.Index}, nil
	}
	w := way{tunnel: l.Index}
	m, err := route.Lookup(ctx, h.NS, route.Query{Dst: to})
	if err != nil {
		return h.refused(ctx, w, to, err)
	}
	w.src, w.bare = m.Src, m.Dev != l.Index
	if m.Route.Protocol != h.Owner {
		w.cause, w.text = RouteForeign, fmt.Sprintf("the kernel sends packets to %v by a route of another program: %v", to, m.Route)
		if !h.has(ctx, to) {
			w.cause, w.text = RouteMissing, fmt.Sprintf("no route of the fleet leads to %v; the kernel chooses %v", to, m.Route)
		}
		return w, nil
	}
	if e, ok := m.Route.Encap.(route.IPEncap); ok {
		w.outer = e.Dst
	} else if w.bare {
		w.outer = m.Via
	}
	if w.outer.IsValid() && len(endpoints) > 0 && !slices.Contains(endpoints, w.outer) {
		w.cause, w.text = RouteOther, fmt.Sprintf("the route to %v leads to %v, and the peer is at %v", to, w.outer, endpoints)
	}
	return w, nil
}

// refused names why a lookup found no way.
func (h Host) refused(ctx context.Context, w way, to netip.Addr, err error) (way, error) {
	if ctx.Err() != nil || errors.Is(err, os.ErrClosed) {
		return way{}, err
	}
	// A missing route and an unreachable one of the pool at the lowest priority are the same for the kernel, so the table is read.
	routes, lerr := route.List(ctx, h.NS, route.Filter{Family: familyOf(to), Table: route.TableMain})
	if lerr != nil {
		return way{}, lerr
	}
	const lowest = 1<<32 - 1
	for _, r := range routes {
		if !r.Dst.Contains(to) || r.Metric == lowest {
			continue
		}
		switch {
		case r.Protocol == h.Owner && r.Type == route.TypeUnreachable:
			w.cause, w.text = PeerTakenForDead, fmt.Sprintf("the route is %v", r)
			return w, nil
		case r.Protocol != h.Owner && r.Type != route.TypeUnicast && r.Dst.Bits() > 0:
			w.cause, w.text = RouteForeign, fmt.Sprintf("a route of another program refuses packets to %v: %v", to, r)
			return w, nil
		}
	}
	w.cause, w.text = RouteMissing, fmt.Sprintf("no route leads to %v: %v", to, err)
	return w, nil
}

// has reports whether the fleet has a route to the address in the main table, chosen or not. One that only refuses, for the pool, is
// none.
func (h Host) has(ctx context.Context, to netip.Addr) bool {
	for r, err := range route.All(ctx, h.NS, route.Filter{Family: familyOf(to), Table: route.TableMain, Protocol: h.Owner}) {
		if err == nil && r.Dst.Contains(to) && r.Type == route.TypeUnicast {
			return true
		}
	}
	return false
}
