package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// Changes is what an Apply did.
type Changes struct {
	Routes route.Changes
	Peers  PeerChanges
}

// PeerChanges counts what was done to the peers of a WireGuard link.
type PeerChanges struct{ Added, Changed, Deleted int }

// Any reports whether anything was changed.
func (c Changes) Any() bool { return c != Changes{} }

func (c Changes) String() string {
	s := fmt.Sprintf("routes: %d added, %d replaced, %d deleted", c.Routes.Added, c.Routes.Replaced, c.Routes.Deleted)
	if c.Peers != (PeerChanges{}) {
		s += fmt.Sprintf("; peers: %d added, %d changed, %d deleted", c.Peers.Added, c.Peers.Changed, c.Peers.Deleted)
	}
	return s
}

// RefusedError says which routes were not applied although all others were.
type RefusedError struct {
	Routes []error // *netns.Error, one for each route
}

// Error returns the errors of the routes, one a line.
func (e *RefusedError) Error() string { return errors.Join(e.Routes...).Error() }

// Unwrap returns the errors of the routes.
func (e *RefusedError) Unwrap() []error { return e.Routes }

// Apply makes the fleet's routes, and the peers of a WireGuard link, those of the plan. It touches the difference only. Peers come
// before the routes that need them, and go after them; a route that differs is replaced in place, and what is not wanted is deleted
// last. While somebody follows [Wire.Changes], and they say nothing else, the kernel has what the last Apply has made: it is not read
// then.
//
// A route of another protocol with the same destination and metric stays: the fleet's is refused, with an error that is os.ErrExist
// and names the other. Such a route, and one that the kernel refuses for a reason of its own, keep no others from being applied. The
// error is then a *RefusedError, and the Changes may count some of the routes only. With any other error the Changes are zero. A Plan
// of no fleet is os.ErrInvalid: it would delete everything.
func (w *Wire) Apply(ctx context.Context, p plan.Plan) (Changes, error) {
	const op = "Apply"
	if len(p.Trusted) == 0 {
		return Changes{}, w.fail(op, "plan", refuse.Input("it is of no fleet: the snapshot that it was made for has no config"))
	}
	w.changing.Lock()
	defer w.changing.Unlock()
	var did Changes
	late, err := w.addPeers(ctx, p, &did.Peers)
	if err != nil {
		return Changes{}, err
	}
	var refused []error
	added, doubts, isKnown := w.begin(p)
	if isKnown && w.add(ctx, added) {
		did.Routes.Added = len(added)
	} else {
		did.Routes, refused, err = w.syncRoutes(ctx, p.Routes)
	}
	if err == nil {
		err = w.deletePeers(ctx, late, &did.Peers)
	}
	if err != nil {
		return Changes{}, errors.Join(append(refused, err)...)
	}
	if len(refused) > 0 {
		return did, &RefusedError{refused}
	}
	w.done(doubts)
	return did, nil
}

// syncRoutes makes the fleet's routes those given, without those that are refused, which have a reason each. Where one of those has
// a place that the fleet has another route at, that one stays.
func (w *Wire) syncRoutes(ctx context.Context, want []route.Route) (did route.Changes, refused []error, err error) {
	did, err = route.Sync(ctx, w.ns, w.o.Owner, want...)
	if err == nil {
		return did, nil, nil
	}
	own, listErr := w.Routes(ctx)
	if listErr != nil {
		return did, nil, errors.Join(err, listErr)
	}
	has := make(map[place]route.Route, len(own))
	for _, r := range own {
		has[placeOf(r)] = r
	}
	want = slices.Clone(want)
	// Each round finds the refused ones of one batch of Sync at least.
	for err != nil {
		why := byRoute(err)
		rest := want[:0:0]
		for _, r := range want {
			r.Protocol = w.o.Owner
			reason := why["route "+r.String()]
			if reason == nil {
				rest = append(rest, r)
				continue
			}
			refused = append(refused, reason)
			if old, ok := has[placeOf(r)]; ok && !old.Equal(r) {
				rest = append(rest, old)
			}
		}
		if len(why) == 0 || len(rest) == len(want) && slices.EqualFunc(rest, want, route.Route.Equal) {
			return route.Changes{}, refused, err
		}
		want = rest
		did, err = route.Sync(ctx, w.ns, w.o.Owner, want...)
	}
	return did, refused, nil
}

// byRoute finds, by subject, the errors that are about one route and not about the link, the program's rights or the connection.
func byRoute(err error) map[string]error {
	found := map[string]error{}
	var walk func(error)
	walk = func(err error) {
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range many.Unwrap() {
				walk(err)
			}
			return
		}
		one, ok := err.(*netns.Error)
		if !ok {
			return
		}
		for _, cause := range []error{os.ErrExist, syscall.EINVAL, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL} {
			if errors.Is(one, cause) {
				found[one.Subject] = one
			}
		}
	}
	walk(err)
	return found
}

// place is what the kernel tells routes apart by.
type place struct {
	dst    netip.Prefix
	table  route.Table
	metric uint32
	tos    uint8
}

func placeOf(r route.Route) place {
	p := place{r.Dst, r.Table, r.Metric, r.TOS}
	if p.table == 0 {
		p.table = route.TableMain
	}
	if p.metric == 0 && r.Dst.Addr().Is6() {
		p.metric = 1024 // the kernel's default
	}
	return p
}
