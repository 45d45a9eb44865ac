//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
)

var meshRow = row{
	name: "mesh", rounds: 2, run: runMesh,
	work: "128 agents start at once in an empty fleet, until the kernel of each has the routes to all others",
}

var thousandRow = row{
	name: "thousand", rounds: 3, run: runThousand,
	work: "A running node while 999 others join at once: 999 concurrent claims, each with its node and alive keys, until its kernel has all routes",
}

const (
	meshSettled = "until all kernels have all routes"
	meshCPU     = "processor time of all agents, for one of them"
)

func runMesh(ctx context.Context, b *bout) error {
	n := b.size(128, 12)
	for range b.rounds {
		if err := meshOnce(ctx, b, n); err != nil {
			return err
		}
	}
	b.atMost(fmt.Sprintf("%d nodes settled, the slowest", n), meshSettled, 1, 60_000)
	b.note("%d kernels with %d routes each.", n, 2*(n-1))
	return nil
}

func meshOnce(ctx context.Context, b *bout, n int) (err error) {
	w, err := newWorld(ctx, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	began, busy := time.Now(), processorTime()
	for _, h := range w.nodes() {
		w.start(ctx, h)
	}
	if err := w.waitRoutes(ctx, w.nodes(), n-1); err != nil {
		return err
	}
	b.took(meshSettled, time.Since(began))
	b.took(meshCPU, (processorTime()-busy)/time.Duration(n))
	return nil
}

const (
	thousandSettled = "until the running node's kernel has all routes"
	thousandClaims  = "until all claims are made"
	thousandClaim   = "one claim"
)

func runThousand(ctx context.Context, b *bout) error {
	n := b.size(999, 60)
	for range b.rounds {
		if err := thousandOnce(ctx, b, n); err != nil {
			return err
		}
	}
	b.atMost(fmt.Sprintf("%d joins settled, the slowest", n+1), thousandSettled, 1, 60_000)
	return nil
}

func thousandOnce(ctx context.Context, b *bout, n int) (err error) {
	w, err := newWorld(ctx, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	w.start(ctx, w.nodes()[0])
	if _, err := w.joined(ctx, w.nodes()); err != nil {
		return err
	}
	began := time.Now()
	times, err := w.record(ctx, b, n)
	if err != nil {
		return err
	}
	b.took(thousandClaims, time.Since(began))
	if err := w.waitRoutes(ctx, w.nodes(), n); err != nil {
		return err
	}
	b.took(thousandSettled, time.Since(began))
	for _, d := range times {
		b.took(thousandClaim, d)
	}
	return nil
}

// connections is how many connections to the store recorded nodes share.
const connections = 32

// record makes n nodes join that nobody runs, all at once, and returns how long each waited for its prefixes. No prefix is given
// out twice.
func (w *world) record(ctx context.Context, b *bout, n int) ([]time.Duration, error) {
	config := fleetConfig()
	plain, err := w.client()
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	var stores []*store.Store
	for range connections {
		s, err := w.open()
		if err != nil {
			return nil, err
		}
		defer s.Close()
		stores = append(stores, s)
	}
	if config, err = stores[0].EnsureConfig(ctx, config); err != nil {
		return nil, err
	}
	var again atomic.Int32
	var mu sync.Mutex
	given := map[netip.Prefix]string{}
	times := make([]time.Duration, n)
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i
	}
	err = atOnce(numbers, n, func(i int) error {
		node, s := recorded(i), stores[i%connections]
		began := time.Now()
		var err error
		node.Prefixes, err = s.Claim(ctx, node.ID, config)
		for ; errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil; node.Prefixes, err = s.Claim(ctx, node.ID, config) {
			again.Add(1) // as an agent does: the store had no time for it
		}
		if err != nil {
			return err
		}
		times[i] = time.Since(began)
		mu.Lock()
		for _, p := range node.Prefixes {
			if other := given[p]; other != "" {
				err = fmt.Errorf("%v was given to %s and to %s", p, other, node.Name)
			}
			given[p] = node.Name
		}
		mu.Unlock()
		if err == nil {
			err = s.PutNode(ctx, node)
		}
		if err == nil {
			alive := state.Alive{Version: state.Version, ID: node.ID, Generation: 1, Instance: state.NewID(), Machine: node.Name, Pid: 1}
			_, err = plain.Put(ctx, state.Root(fleetName)+state.AliveKey(node.ID), string(state.Encode(alive)), clientv3.WithLease(clientv3.NoLease))
		}
		return err
	})
	if n := again.Load(); err == nil && n > 0 {
		b.note("%d claims had no answer within ten seconds and were made again.", n)
	}
	return times, err
}
