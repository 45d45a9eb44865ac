package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/boxwire/boxwire/netns"
)

const (
	burstBoxes   = 100
	burstWorkers = 16

	nameOneByOne = "boxwire, one after the other"
	nameAtOnce   = "boxwire, 16 at once"
)

var burstRow = row{
	name: "burst",
	work: "100 attaches from 16 goroutines at once, beside the same 100 one after the other; the figure is the whole burst",
	unit: "burst",
	n:    10,
	run: func(ctx context.Context, b *bout) error {
		boxes := b.size(burstBoxes, 20)
		var single []time.Duration
		err := b.interleave(ctx, b.n,
			attachMany(nameOneByOne, boxes, 1, nil),
			attachMany(nameAtOnce, boxes, burstWorkers, func(d time.Duration) { single = append(single, d) }),
		)
		if err != nil {
			return err
		}
		b.atMost(nameAtOnce, nameOneByOne, 0.75)
		slices.Sort(single)
		b.note("One attach among 16: p50 %.1f ms, p99 %.1f ms.", micro(single[len(single)/2])/1000, micro(single[len(single)*99/100])/1000)
		return nil
	},
}

// attachMany measures boxes attaches by some workers, on a fresh host each time.
func attachMany(name string, boxes, workers int, each func(time.Duration)) *contender {
	return &contender{name: name, round: func(ctx context.Context, _ int) (time.Duration, error) {
		if err := settle(ctx); err != nil {
			return 0, err
		}
		h, err := newHost(ctx)
		if err != nil {
			return 0, err
		}
		defer h.close()
		spaces := make([]*netns.NS, boxes)
		single := make([]time.Duration, boxes)
		errs := make([]error, workers)
		next := make(chan int, boxes)
		for i := range boxes {
			next <- i
		}
		close(next)
		d, _ := took(func() error {
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					for i := range next {
						var err error
						single[i], err = took(func() (err error) {
							if spaces[i], err = netns.New(ctx); err != nil {
								return err
							}
							return plug(ctx, h, spaces[i], i)
						})
						if err != nil {
							errs[w] = fmt.Errorf("box %d: %w", i, err)
							return
						}
					}
				})
			}
			wg.Wait()
			return nil
		})
		err = errors.Join(errs...)
		for _, ns := range spaces {
			if ns != nil {
				err = errors.Join(err, h.keep(ns), ns.Close())
			}
		}
		if err == nil {
			err = h.check(ctx)
		}
		if each != nil {
			for _, s := range single {
				each(s)
			}
		}
		return d, err
	}}
}
