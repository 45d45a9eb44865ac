package nat

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// The least time from one repair to the next: it grows, because another program
// that undoes them at once is not to be fought with all of the machine's power.
// After the calm it begins anew.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 500 * time.Millisecond
	calm       = 10 * time.Second
)

// Keep brings the table to the desired state, as [NAT.Sync] does, and keeps it
// there while the loop runs: when another program removes the table, flushes the
// ruleset or reloads its firewall, what was lost is back within a moment, long
// before a second has gone by. Flows that began in the gap are ended, so that
// their next packet takes the right way.
//
// desired is called before each repair, from the loop's goroutine; a program whose
// state changes returns the present one, and also publishes or syncs it itself.
// What this NAT changes is no damage to Keep, nor is what other programs add: only
// what they remove of the table, and what they do to its rules. So several
// programs may keep one table, each its own ports, with [State.Owners]. Where two
// keep states that exclude each other, or a program removes the table again and
// again, the repairs become rarer, down to two in a second.
//
// Keep also makes links forward that appear later: the interface of a network that
// was not there yet, and new links to the outside.
//
// The first Repair is [KeepStarted]. The body of the loop should be short, because
// nothing is repaired meanwhile. A repair that failed comes as an error with its
// reason, and is tried again after a pause if the loop goes on. The loop ends with
// the context, whose error is the last, or when the kernel's events cannot be
// received.
func (n *NAT) Keep(ctx context.Context, desired func() State) iter.Seq2[Repair, error] {
	return newKeeper(n, desired).keep(ctx)
}

// errStopped says that the loop over the repairs has ended.
var errStopped = errors.New("the loop has ended")

// keeper is a Keep under way.
type keeper struct {
	n        *NAT
	desired  func() State
	exchange *nl.Conn
	buffer   int // of the events, 0 for the default
	watchers sync.WaitGroup
	wake     chan struct{} // something is to be done
	broken   chan error    // a watcher cannot go on

	mu    sync.Mutex // guards the following fields
	todo  todo
	ports map[uint32]bool // the port ids of our own changes
}

// todo is what the watchers have seen since the last repair.
type todo struct {
	table  bool // look after the table
	links  bool // look after the links
	open   bool // the transaction that did it has not been named yet
	repair Repair
}

func newKeeper(n *NAT, desired func() State) *keeper {
	return &keeper{n: n, desired: desired, wake: make(chan struct{}, 1), broken: make(chan error, 2), ports: make(map[uint32]bool)}
}

func (k *keeper) keep(ctx context.Context) iter.Seq2[Repair, error] {
	return func(yield func(Repair, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer k.watchers.Wait()
		defer cancel()
		err := k.start(ctx)
		if err == nil {
			err = k.run(ctx, yield)
		}
		if !errors.Is(err, errStopped) {
			yield(Repair{}, k.fail(err))
		}
	}
}

func (k *keeper) fail(err error) error { return k.n.fail("nat.Keep", k.n.String(), err) }

// start begins to watch.
func (k *keeper) start(ctx context.Context) error {
	var err error
	if k.exchange, err = k.n.ns.Exchange(unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	links, err := readLinks(ctx, k.n.ns)
	if err != nil {
		return err
	}
	known := make(map[int]string)
	for _, l := range links {
		known[l.index] = l.name
	}
	for _, w := range []struct {
		family int
		group  uint32
		each   func(nl.Message)
	}{
		{unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES, func(m nl.Message) { k.ruleset(ctx, m) }},
		{unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, k.links(known)},
	} {
		events, err := k.n.ns.Subscribe(ctx, w.family, nl.EventConfig{Groups: []uint32{w.group}, Buffer: k.buffer})
		if err != nil {
			return err
		}
		k.watchers.Go(func() {
			defer events.Close()
			k.watch(ctx, events, w.each)
		})
	}
	return nil
}

// run repairs until the loop or the context ends.
func (k *keeper) run(ctx context.Context, yield func(Repair, error) bool) error {
	k.todo = todo{table: true, links: true}
	var last time.Time
	var pause time.Duration
	for {
		if time.Since(last) > calm {
			pause = 0
		}
		if err := k.pause(ctx, pause-time.Since(last)); err != nil {
			return err
		}
		done, repair, err := k.repair(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if done || err != nil {
			last, pause = time.Now(), min(max(2*pause, firstPause), maxPause)
			if !yield(repair, k.fail(err)) {
				return errStopped
			}
		}
		if err != nil {
			k.note(func(t *todo) { *t = todo{table: true, links: true, repair: repair} })
		}
		select {
		case <-k.wake:
		case err := <-k.broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (k *keeper) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// repair does what is to be done, and reports whether anything had to be put
// right.
func (k *keeper) repair(ctx context.Context) (done bool, r Repair, err error) {
	k.mu.Lock()
	do := k.todo
	k.todo = todo{}
	k.mu.Unlock()
	r = do.repair
	desired := k.desired()
	if do.table {
		done, err = k.n.sync(ctx, desired)
		done = done || r.Reason == KeepStarted
	} else if do.links {
		done, err = k.n.forwardLinks(ctx, desired.Networks)
	}
	return done && err == nil, r, err
}
