package route

import (
	"context"
	"errors"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// List returns the routes of the namespace that the filter chooses, IPv4 first,
// in the kernel's order. The list is complete: when routes change while it is
// read, it is read again. A route over several gateways (multipath) has neither
// Via nor Dev in it.
func List(ctx context.Context, ns *netns.NS, f Filter) ([]Route, error) {
	routes, err := list(ctx, ns, f)
	if err != nil {
		return nil, fail.New("route.List", ns, "routes", err)
	}
	return routes, nil
}

func list(ctx context.Context, ns *netns.NS, f Filter) ([]Route, error) {
	switch {
	case f.Family != 0 && f.Family != IPv4 && f.Family != IPv6:
		return nil, refuse.Input("family %d is neither IPv4 nor IPv6", f.Family)
	case f.Dev < 0 || int64(f.Dev) > 1<<31-1:
		return nil, refuse.Input("dev %d is not the index of a link", f.Dev)
	}
	conn, err := open(ns)
	if err != nil {
		return nil, err
	}
	var routes []Route
	for _, family := range [...]struct {
		Family
		af uint8
	}{{IPv4, unix.AF_INET}, {IPv6, unix.AF_INET6}} {
		if f.Family != 0 && f.Family != family.Family {
			continue
		}
		begin := len(routes)
		err := conn.Dump(ctx, dump(family.af, f), func() { routes = routes[:begin] }, func(m nl.Message) error {
			if m.Type != unix.RTM_NEWROUTE {
				return nil
			}
			r, ok, err := decode(m.Body)
			if ok && f.match(&r) {
				routes = append(routes, r)
			}
			return err
		})
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
			return nil, err
		}
	}
	return routes, nil
}

// open returns the namespace's rtnetlink connection.
func open(ns *netns.NS) (*nl.Conn, error) {
	if ns == nil {
		return nil, refuse.Input("the namespace is nil")
	}
	return ns.Exchange(unix.NETLINK_ROUTE)
}
