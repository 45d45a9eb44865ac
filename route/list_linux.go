package route

import (
	"context"
	"errors"
	"iter"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/nl"
	_ "github.com/boxwire/boxwire/internal/nldebug" // BOXWIRE_DEBUG=netlink
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// List returns the routes of the namespace that the filter selects, IPv4 first, in the
// kernel's order. The list is complete: if routes change during the dump, so that it may
// lack one, List reads again, up to 50 times, and then returns [ErrInterrupted].
func List(ctx context.Context, ns *netns.NS, f Filter) ([]Route, error) {
	routes, err := list(ctx, ns, f)
	if err != nil {
		return nil, fail.New("route.List", ns, "routes", err)
	}
	return routes, nil
}

func list(ctx context.Context, ns *netns.NS, f Filter) ([]Route, error) {
	conn, err := open(ns)
	if err != nil {
		return nil, err
	}
	var all []Route
	err = eachFamily(f, func(af uint8) error {
		routes, err := nl.List(ctx, conn, dump(af, f), newGuard(af, f), func(m nl.Message, r *Route) (bool, error) {
			return decode(m.Body, r, &f)
		})
		if all == nil {
			all = routes
		} else {
			all = append(all, routes...)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// All yields the routes of the namespace that the filter selects, in the order of [List].
// It holds one reply of the kernel at a time, so a full table takes no more memory than an
// empty one. It reads from a socket of its own, so the loop may take its time and use this
// package.
//
// All cannot take back what it has yielded. If routes change during the dump, so that it
// may miss or repeat one, it ends with [ErrInterrupted]. A sequence that ends without an
// error was complete.
func All(ctx context.Context, ns *netns.NS, f Filter) iter.Seq2[Route, error] {
	return func(yield func(Route, error) bool) {
		if err := all(ctx, ns, f, yield); err != nil && !errors.Is(err, errStop) {
			yield(Route{}, fail.New("route.All", ns, "routes", err))
		}
	}
}

// errStop says that the loop over a sequence has ended.
var errStop = errors.New("the loop has ended")

func all(ctx context.Context, ns *netns.NS, f Filter, yield func(Route, error) bool) error {
	if ns == nil {
		return errNoNamespace
	}
	conn, err := nsconn.Own(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer conn.Close()
	var r Route
	return eachFamily(f, func(af uint8) error {
		return conn.DumpOnce(ctx, dump(af, f), newGuard(af, f), func(m nl.Message) error {
			ok, err := decode(m.Body, &r, &f)
			if ok && !yield(r, nil) {
				return errStop
			}
			return err
		})
	})
}

// eachFamily calls fn for the families that the filter chooses, and forgives
// what only means that there are no routes.
func eachFamily(f Filter, fn func(af uint8) error) error {
	if err := f.check(); err != nil {
		return err
	}
	for _, family := range [...]struct {
		Family
		af uint8
	}{{IPv4, unix.AF_INET}, {IPv6, unix.AF_INET6}} {
		if f.Family != 0 && f.Family != family.Family || family.Family == IPv6 && !kernel.HasIPv6() {
			continue // without IPv6 the kernel dumps the routes of IPv4 in its place, and refuses rules
		}
		err := fn(family.af)
		var refused *nl.Error
		if errors.As(err, &refused) {
			switch {
			case refused.Errno == unix.ENOENT && f.Table != 0:
				continue // no such table, so no routes
			case refused.Errno == unix.EOPNOTSUPP && family.Family == IPv6:
				continue // a kernel without IPv6 has no routes of it
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errNoNamespace = refuse.Input("the namespace is nil")

// open returns the namespace's rtnetlink connection.
func open(ns *netns.NS) (*nl.Conn, error) {
	if ns == nil {
		return nil, errNoNamespace
	}
	return nsconn.Shared(ns, unix.NETLINK_ROUTE)
}
