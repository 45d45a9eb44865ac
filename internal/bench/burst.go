package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

const (
	burstBoxes   = 100
	burstWorkers = 16
	burstTarget  = 0.75

	nameOneByOne      = "boxwire, one after the other"
	nameAtOnce        = "boxwire, 16 at once"
	nameFloorOneByOne = "floor, one after the other"
	nameFloorAtOnce   = "floor, 16 at once"
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
			attachMany(nameOneByOne, boxes, 1, boxwireWorker, nil),
			attachMany(nameAtOnce, boxes, burstWorkers, boxwireWorker, &single),
			attachMany(nameFloorOneByOne, boxes, 1, floorWorker, nil),
			attachMany(nameFloorAtOnce, boxes, burstWorkers, floorWorker, nil),
		)
		if err != nil {
			return err
		}
		b.atMost(nameAtOnce, nameOneByOne, burstTarget)
		slices.Sort(single)
		b.note("One attach among 16: p50 %.1f ms, p99 %.1f ms.", micro(single[len(single)/2])/1000, micro(single[len(single)*99/100])/1000)
		b.limit(nameFloorAtOnce, nameFloorOneByOne, burstTarget,
			"the kernel makes a namespace or a link under locks of which it has one, so that two processors do little of it at once")
		return nil
	},
}

// limit notes how near bare system calls come to a target, and why they do not
// reach it where they do not: then nothing that is built on them can.
func (b *bout) limit(series, other string, target float64, why string) {
	ratio := pairRatio(b.figures[series], b.figures[other])
	if ratio <= target {
		b.note("%s / %s is %.2f.", series, other, ratio)
		return
	}
	b.note("%s / %s is %.2f, so that the kernel leaves no way to %.2f: %s.", series, other, ratio, target, why)
}

// A worker attaches box i of a host. It returns what has to be done afterwards,
// untimed, so that the box stays and is looked at.
type worker func(ctx context.Context, i int) (keep func() error, err error)

// attachMany measures boxes attached by some workers, on a fresh host each time.
// What each box took goes to single.
func attachMany(name string, boxes, workers int, hire func(*host) (work worker, dismiss func() error, err error), single *[]time.Duration) *contender {
	return &contender{name: name, round: func(ctx context.Context, i int) (time.Duration, error) {
		if err := settle(ctx); err != nil {
			return 0, err
		}
		h, err := newHost(ctx)
		if err != nil {
			return 0, err
		}
		defer h.close()
		crew := make([]worker, workers)
		for w := range crew {
			work, dismiss, err := hire(h)
			if err != nil {
				return 0, err
			}
			defer dismiss()
			crew[w] = work
		}
		keep := make([]func() error, boxes)
		each := make([]time.Duration, boxes)
		errs := make([]error, boxes)
		next := make(chan int, boxes)
		for j := range boxes {
			next <- j
		}
		close(next)
		d, _ := took(func() error {
			var wg sync.WaitGroup
			for _, work := range crew {
				wg.Go(func() {
					for j := range next {
						begin := time.Now()
						keep[j], errs[j] = work(ctx, j)
						each[j] = time.Since(begin)
					}
				})
			}
			wg.Wait()
			return nil
		})
		for j := range boxes {
			if errs[j] != nil {
				errs[j] = fmt.Errorf("box %d: %w", j, errs[j])
				continue
			}
			errs[j] = keep[j]()
		}
		if err := errors.Join(errs...); err != nil {
			return d, err
		}
		if single != nil && i >= warmUp {
			*single = append(*single, each...)
		}
		return d, h.check(ctx)
	}}
}

func boxwireWorker(h *host) (worker, func() error, error) {
	return func(ctx context.Context, i int) (func() error, error) {
		ns, err := netns.New(ctx)
		if err != nil {
			return nil, err
		}
		if err := plug(ctx, h, ns, i); err != nil {
			return nil, errors.Join(err, ns.Close())
		}
		return func() error { return errors.Join(h.keep(ns), ns.Close()) }, nil
	}, func() error { return nil }, nil
}

// floorWorker has a socket of its own.
func floorWorker(h *host) (worker, func() error, error) {
	sock, err := openFloor(h.ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, err
	}
	return func(_ context.Context, i int) (func() error, error) {
		ns, in, err := floorNamespace(loopbackUp())
		if err != nil {
			return nil, err
		}
		if err := h.parcel(i).deliver(sock, in, ns); err != nil {
			return nil, errors.Join(err, in.Close(), unix.Close(ns))
		}
		return func() error {
			h.boxes = append(h.boxes, os.NewFile(uintptr(ns), "netns"))
			return in.Close()
		}, nil
	}, sock.Close, nil
}
