//go:build linux

package main

import (
	"context"
	"net/netip"

	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/pkg/types"
)

// status says whether ADD can work. It changes nothing.
func status(ctx context.Context, r *request) error {
	if r.conf.as == modeLoopback {
		return nil
	}
	if r.conf.inside() {
		if r.conf.Master != "" && !r.conf.LinkInContainer {
			if _, err := r.parent(ctx, r.host); err != nil {
				return types.NewError(types.ErrPluginNotAvailable, "the master is not usable", oneLine(err))
			}
		}
	} else if r.conf.as == modePTP {
		// Nothing of it is there before the first container.
	} else if _, err := getBridge(ctx, r); netns.IgnoreNotExist(err) != nil {
		return types.NewError(types.ErrPluginNotAvailable, "the bridge is not usable", oneLine(err))
	}
	switch {
	case r.conf.pool != nil && len(r.conf.pool.Ranges) == 0: // the runtime's, which it does not have
	case r.conf.pool != nil:
		s, err := r.conf.pool.openState(r.conf.Name)
		if err != nil {
			return types.NewError(types.ErrPluginNotAvailable, "the allocator is not usable", oneLine(err))
		}
		defer s.close()
		boot, err := bootID()
		if err == nil {
			err = s.reap(ctx, r.host, boot)
		}
		var taken map[netip.Addr]string
		if err == nil {
			taken, err = r.conf.pool.taken(ctx, r, s, boot)
		}
		if err == nil {
			_, _, err = r.conf.pool.choose(s, nil, taken)
		}
		if err != nil {
			return types.NewError(types.ErrPluginNotAvailable, "no address can be assigned", oneLine(err))
		}
	case r.conf.delegated():
		_, err := r.ask(ctx, "STATUS")
		return err
	}
	return nil
}
