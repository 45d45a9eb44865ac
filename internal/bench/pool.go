package main

import (
	"context"
	"time"

	"github.com/boxwire/boxwire/netns"
)

const namePool = "boxwire, from a pool"

var poolRow = row{
	name: "pool",
	work: "the same as attach, with the namespace taken from a pool that was filled beforehand",
	unit: "box",
	n:    200,
	run: func(ctx context.Context, b *bout) error {
		contenders, err := each(ctx, boxwireAttach, pooledAttach)
		if err != nil {
			return err
		}
		if err := b.interleave(ctx, b.n, contenders...); err != nil {
			return err
		}
		b.atMost(namePool, nameBoxwire, 0.7)
		return nil
	},
}

// pooledAttach waits, untimed, until the pool has one ready.
func pooledAttach(h *host) (*contender, error) {
	p, err := netns.NewPool(4)
	if err != nil {
		return nil, err
	}
	return &contender{
		name:  namePool,
		close: p.Close,
		round: func(ctx context.Context, i int) (time.Duration, error) {
			time.Sleep(5 * time.Millisecond) // a box is wanted now and then, not without a pause
			var ns *netns.NS
			d, err := took(func() (err error) {
				if ns, err = p.Get(ctx); err != nil {
					return err
				}
				return plug(ctx, h, ns, i)
			})
			if err != nil {
				return d, err
			}
			defer ns.Close()
			return d, h.keep(ns)
		},
	}, nil
}
