package main

import (
	"context"
	"time"

	"github.com/boxwire/boxwire/netns"
)

const (
	namePool       = "boxwire, from a pool"
	nameBeforehand = "boxwire, namespace made beforehand"
	nameFloorPool  = "floor, namespace made beforehand"
	poolTarget     = 0.7
)

var poolRow = row{
	name: "pool",
	work: "the same as attach, with the namespace taken from a pool that was filled beforehand",
	unit: "box",
	n:    200,
	run: func(ctx context.Context, b *bout) error {
		contenders, err := b.each(ctx, boxwireAttach, pooledAttach, beforehandAttach, floorAttach, func(h *host) (*contender, error) {
			return floorContender(h, nameFloorPool, h.parcel, true)
		})
		if err != nil {
			return err
		}
		for _, c := range contenders {
			now := c.round
			c.round = func(ctx context.Context, i int) (time.Duration, error) {
				time.Sleep(5 * time.Millisecond) // a box is wanted now and then, not without a pause
				return now(ctx, i)
			}
		}
		if err := b.interleave(ctx, b.n, contenders...); err != nil {
			return err
		}
		b.atMost(namePool, nameBoxwire, poolTarget)
		b.note("%s / %s is %.2f: more than that is the pool's, which makes the next namespace meanwhile, under the same locks of the kernel.",
			nameBeforehand, nameBoxwire, pairRatio(b.figures[nameBeforehand], b.figures[nameBoxwire]))
		b.limit(nameFloorPool, nameFloor, poolTarget, "connecting the box is the greater part of the work, and a pool saves only the namespace")
		return nil
	},
}

func pooledAttach(h *host) (*contender, error) {
	p, err := netns.NewPool(4)
	if err != nil {
		return nil, err
	}
	c := attachTo(h, namePool, p.Get, false)
	c.close = p.Close
	return c, nil
}

// beforehandAttach has the best that any pool could give.
func beforehandAttach(h *host) (*contender, error) {
	return attachTo(h, nameBeforehand, netns.New, true), nil
}
