package main

import (
	"context"
	"errors"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// floorLock is where the floor locks; the program has a /run of its own.
const floorLock = "/run/floor.lock"

// extraElement is the element of the extra port.
var extraElement = floor.Elements{Set: "any4", Keys: [][]byte{anyKey(extra)}, Data: [][]byte{boxData(extra)}, Comment: extra.Owner}

// floorPublish does all that the library does: it takes the lock, reads the
// generation and what could be in the way, holds the port, commits, and looks for
// flows that are older than the mapping.
func floorPublish(ctx context.Context, ports int) (*contender, error) {
	g, err := newFloorGate(ctx, nameFloor, ports)
	if err != nil {
		return nil, err
	}
	key, port := anyKey(extra), int(extra.Host.Port())
	ask := floor.GetElement(floor.GetElement(floor.GetGeneration(nil), nftTable, "any4", key), nftTable, "uses4", key)
	ranges, flows := floor.GetElements(nftTable, "rng4"), floor.CountFlows()
	add, del := floor.Batch(nftTable, true, extraElement), floor.Batch(nftTable, false, extraElement)
	work := func() (fd int, err error) {
		unlock, err := floor.Lock(floorLock)
		if err != nil {
			return -1, err
		}
		defer unlock()
		gen, err := g.sock.Ask(ask)
		if err == nil {
			_, err = g.sock.Dump(ranges, func([]byte) {})
		}
		if err != nil {
			return -1, err
		}
		fd, err = floor.Reserve(port, 1)
		if err != nil {
			return -1, err
		}
		floor.SetGeneration(add, gen)
		if err = g.sock.Batch(add); err == nil {
			_, err = g.sock.Ask(flows)
		}
		return fd, err
	}
	g.round = func(context.Context, int) (time.Duration, error) {
		fd := -1
		d, err := g.stay(func() (err error) {
			fd, err = work()
			return err
		})
		return d, errors.Join(err, published(g.ns), g.sock.Batch(del), unix.Close(fd))
	}
	return &g.contender, nil
}

// batchPublish sends the batch with the one element alone.
func batchPublish(ctx context.Context, ports int) (*contender, error) {
	g, err := newFloorGate(ctx, nameBatch, ports)
	if err != nil {
		return nil, err
	}
	add, del := floor.Batch(nftTable, true, extraElement), floor.Batch(nftTable, false, extraElement)
	g.round = func(context.Context, int) (time.Duration, error) {
		d, err := g.stay(func() error { return g.sock.Batch(add) })
		return d, errors.Join(err, published(g.ns), g.sock.Batch(del))
	}
	return &g.contender, nil
}

// floorGate is a contender that works on a table without the library.
type floorGate struct {
	contender
	ns   *netns.NS
	sock *floor.Socket
	todo chan func() // for a thread that stays in the namespace
	done chan bool
}

func newFloorGate(ctx context.Context, name string, ports int) (*floorGate, error) {
	ns, gw, err := gate(ctx, ports, nat.Options{NoReserve: true})
	if err != nil {
		return nil, err
	}
	g := &floorGate{ns: ns, todo: make(chan func()), done: make(chan bool)}
	g.sock, err = openFloor(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, errors.Join(err, gw.Close(), ns.Close())
	}
	go func() {
		defer close(g.done)
		_ = within(ns, func() error {
			for fn := range g.todo {
				fn()
				g.done <- true
			}
			return nil
		})
	}()
	g.name = with(name, ports)
	g.close = func() error {
		close(g.todo)
		<-g.done
		return errors.Join(g.sock.Close(), gw.Close(), ns.Close())
	}
	return g, nil
}

// stay measures fn in the namespace.
func (g *floorGate) stay(fn func() error) (d time.Duration, err error) {
	g.todo <- func() { d, err = took(fn) }
	<-g.done
	return d, err
}
