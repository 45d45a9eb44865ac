//go:build linux

package main

import (
	"context"
	"errors"
	"os"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// parent is the link that macvlans and ipvlans lie on: the master, by default that of
// the default route.
func (r *request) parent(ctx context.Context, ns *netns.NS) (link.Link, error) {
	if r.conf.Master != "" {
		l, err := link.Get(ctx, ns, r.conf.Master)
		if errors.Is(err, os.ErrNotExist) {
			return l, invalid("the master is no link", oneLine(err))
		}
		return l, failed("looking at the master "+r.conf.Master, err)
	}
	routes, err := route.List(ctx, ns, route.Filter{Table: route.TableMain})
	if err != nil {
		return link.Link{}, failed("looking for the default route", err)
	}
	for _, to := range routes {
		if to.Dst.Bits() == 0 && to.Dev != 0 {
			l, err := link.ByIndex(ctx, ns, to.Dev)
			return l, failed("looking at the link of the default route", err)
		}
	}
	return link.Link{}, invalid(r.conf.as+" needs master", "there is no default route whose link could be it")
}
