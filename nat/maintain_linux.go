package nat

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"golang.org/x/sys/unix"
)

// The minimum time between two repairs. It grows while another program keeps reverting them, and is
// reset after calm without a repair.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 500 * time.Millisecond
	calm       = 10 * time.Second
)

// lookAgain is the interval at which Maintain reads what the kernel does not report.
const lookAgain = 5 * time.Second

// Maintain brings the table to the desired state, as [NAT.Sync] does, and repairs it while the loop
// runs: when another program removes the table, flushes the ruleset, reloads its firewall, changes
// rules or deletes elements. A repair follows within a second. Flows that began in the gap and
// contradict the table end.
//
// Maintain calls desired before each repair, in the goroutine of the loop. A program whose state
// changes returns the new one from then on, and also publishes or syncs it itself. Maintain ignores
// changes made by this NAT, and elements that other programs add. Several programs may maintain one
// table, each its own ports, with [State.Owners]. If another program reverts the repairs, as one
// that maintains a contradicting state does, they slow down to two in a second.
//
// Maintain also makes links forward that appear later: the interface of a network, and new links to
// the outside. With [Network.Flowtable], the flowtable gets these, and loses those that become ports. A
// guarded port that appears later, or gets another MAC address, passes IP from then on. When another
// program switches forwarding off, Maintain switches it on again. When one makes the host a router, the
// links' records go, as [NAT.AddNetwork] says. The kernel reports no change of route_localnet, so that
// is read every few seconds.
//
// The first Repair is [ReasonStarted]. The body of the loop should be short, because no repair runs
// meanwhile. A failed repair is an error with its reason, and is tried again after a pause if the
// loop goes on. The loop ends with the context, whose error is the last one, or when the kernel's
// events cannot be received. The sequence may be ranged over again, and begins from the start each
// time.
func (n *NAT) Maintain(ctx context.Context, desired func() State) iter.Seq2[Repair, error] {
	return func(yield func(Repair, error) bool) { newMaintainer(n, desired).maintain(ctx, yield) }
}

// errStopped says that the loop over the repairs has ended.
var errStopped = errors.New("the loop has ended")

// maintainer is one run of Maintain.
type maintainer struct {
	n        *NAT
	desired  func() State
	exchange *nl.Conn
	buffer   int           // of the events, 0 for the default
	again    time.Duration // lookAgain, but for tests
	nets     []Network     // desired when last asked
	guarding atomic.Bool   // guards are desired
	flowing  atomic.Bool   // a network with Flowtable is desired
	watchers sync.WaitGroup
	wake     chan struct{} // there is pending work
	broken   chan error    // a watcher cannot go on

	mu    sync.Mutex // guards the following fields
	todo  todo
	ports map[uint32]bool // the port ids of our own changes
}

// todo is the pending work: what the watchers have seen since the last repair.
type todo struct {
	table  bool // check the table
	links  bool // check the links
	flows  bool // take all flows out of the flowtable, and check the links
	open   bool // the end of the transaction was not reported yet
	repair Repair
}

func newMaintainer(n *NAT, desired func() State) *maintainer {
	return &maintainer{n: n, desired: desired, again: lookAgain, wake: make(chan struct{}, 1), broken: make(chan error, 2), ports: make(map[uint32]bool)}
}

// maintain runs the loop, once for each maintainer.
func (k *maintainer) maintain(ctx context.Context, yield func(Repair, error) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer k.watchers.Wait()
	defer cancel()
	err := k.n.mayChange()
	if err == nil {
		err = k.start(ctx)
	}
	if err == nil {
		err = k.run(ctx, yield)
	}
	if !errors.Is(err, errStopped) {
		yield(Repair{}, k.fail(err))
	}
}

func (k *maintainer) fail(err error) error { return k.n.fail("nat.Maintain", k.n.String(), err) }

// start opens the event sockets and starts the watchers.
func (k *maintainer) start(ctx context.Context) error {
	var err error
	if k.exchange, err = nsconn.Shared(k.n.ns, unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	links, err := readLinks(ctx, k.n.ns)
	if err != nil {
		return err
	}
	known, ways := make(map[int]string), make(map[int]way)
	for _, l := range links {
		known[l.Index], ways[l.Index] = l.Name, way{l.Master, l.MTU}
	}
	for _, w := range []struct {
		family int
		groups []uint32
		each   func(nl.Message)
	}{
		{unix.NETLINK_NETFILTER, []uint32{unix.NFNLGRP_NFTABLES}, func(m nl.Message) { k.ruleset(ctx, m) }},
		{unix.NETLINK_ROUTE, []uint32{
			unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		}, k.links(known, ways)},
	} {
		events, err := nsconn.Subscribe(ctx, k.n.ns, w.family, nl.EventConfig{Groups: w.groups, Buffer: k.buffer})
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
func (k *maintainer) run(ctx context.Context, yield func(Repair, error) bool) error {
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
			k.note(func(t *todo) { *t = todo{table: true, links: true, flows: t.flows, repair: repair} })
		}
		if err := k.wait(ctx); err != nil {
			return err
		}
	}
}

// wait waits for pending work.
func (k *maintainer) wait(ctx context.Context) error {
	tick := time.NewTicker(k.again)
	defer tick.Stop()
	for {
		select {
		case <-k.wake:
			return nil
		case err := <-k.broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if k.localnetOff(ctx) {
				k.noteForwarding()
			}
		}
	}
}

// localnetOff reports whether route_localnet of a network's interface is off. The kernel sends no
// event for it (devinet_conf_proc).
func (k *maintainer) localnetOff(ctx context.Context) bool {
	for _, net := range k.nets {
		name := "net/ipv4/conf/" + net.Interface + "/route_localnet"
		if v, err := k.n.ns.Sysctl(ctx, name); net.has(false) && err == nil && v == "0" {
			return true
		}
	}
	return false
}

func (k *maintainer) pause(ctx context.Context, d time.Duration) error {
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

// repair does the pending work, and reports whether anything had to be repaired.
func (k *maintainer) repair(ctx context.Context) (done bool, r Repair, err error) {
	k.mu.Lock()
	do := k.todo
	k.todo = todo{}
	k.mu.Unlock()
	r = do.repair
	desired := k.desired()
	k.nets = desired.Networks
	k.guarding.Store(len(desired.Guards) > 0)
	k.flowing.Store(slices.ContainsFunc(desired.Networks, func(net Network) bool { return net.Flowtable }))
	if do.table {
		done, err = k.n.sync(ctx, desired)
		done = done || r.Reason == ReasonStarted
	}
	if err == nil && (do.flows || do.links && !do.table) {
		var forwards bool
		forwards, err = k.n.forwardLinks(ctx, desired.Networks, do.flows)
		done = done || forwards
	}
	if err != nil && do.flows {
		k.note(func(t *todo) { t.flows = true })
	}
	return done && err == nil, r, err
}
