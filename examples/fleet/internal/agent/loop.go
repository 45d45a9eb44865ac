//go:build linux

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/probe"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/link"
)

// loop takes in what happens, and brings the kernel in line with it, until ctx ends.
func (a *agent) loop(ctx context.Context) error {
	kernel := make(chan struct{}, 1)
	snapshots := make(chan *state.Snapshot)
	fatal := make(chan error, 4)
	a.start(ctx, fatal, "watch of the kernel", func() error { return a.watchKernel(ctx, kernel) })
	a.start(ctx, fatal, "store", func() error { return a.follow(ctx, snapshots) })
	a.start(ctx, fatal, "membership", func() error { return a.member.run(ctx) })
	if a.embedded != nil {
		a.start(ctx, fatal, "embedded store", func() error { return a.watchEmbedded(ctx) })
	}

	due := time.NewTimer(0) // when the kernel has to be compared again, though nothing happened
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-fatal:
			return err
		case s := <-snapshots:
			a.away = s == nil
			if a.away {
				a.adopt()
			} else {
				a.takeSnapshot(s)
			}
		case j := <-a.member.out:
			if err := a.takeJoined(ctx, j); err != nil {
				return err
			}
		case all := <-a.answers:
			a.takeAnswers(all)
		case <-kernel:
			a.settled = false
			if a.underlay == nil {
				a.member.nudge() // it may wait for a way to the network
			}
		case <-due.C:
			a.settled = false
		}
		due.Stop()
		if next := a.reconcile(ctx); !next.IsZero() {
			due.Reset(max(time.Until(next), 0))
		}
	}
}

// start runs a task until it ends, and makes its error the agent's.
func (a *agent) start(ctx context.Context, fatal chan<- error, name string, task func() error) {
	a.tasks.Go(func() {
		if err := task(); err != nil && ctx.Err() == nil {
			fatal <- fmt.Errorf("%s: %w", name, err)
		}
	})
}

// watchKernel wakes the loop when somebody changes what the agent keeps. A watch that fails begins again.
func (a *agent) watchKernel(ctx context.Context, kernel chan<- struct{}) error {
	for ctx.Err() == nil {
		for _, err := range a.wire.Changes(ctx) {
			if err != nil {
				if ctx.Err() == nil {
					a.Log.Warn("the watch of the kernel begins again", "error", err)
				}
				break
			}
			select {
			case kernel <- struct{}{}:
			default:
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// watchEmbedded returns an error when the store in this process ends by itself.
func (a *agent) watchEmbedded(ctx context.Context) error {
	select {
	case err := <-a.embedded.Err():
		return cmp.Or(err, errors.New("it has stopped"))
	case <-ctx.Done():
		return nil
	}
}

// follow hands the loop each snapshot of the store, and nil while the store is away.
func (a *agent) follow(ctx context.Context, snapshots chan<- *state.Snapshot) error {
	away := trouble{log: func(err error) { a.Log.Warn("the store is away; what is wired stays as it is", "error", err) }}
	for s, err := range a.store.Follow(ctx) {
		if ctx.Err() != nil {
			break
		}
		a.page.setStore(err)
		connected := 1.0
		if err != nil {
			connected = 0
		}
		a.metrics.connected.Set(connected)
		if away.is(err) {
			a.Log.Warn("the store answers again")
		}
		select {
		case snapshots <- s:
		case <-ctx.Done():
		}
	}
	return nil
}

// takeSnapshot takes in what the store has. If it lacks this node, that is written again. A node lives by one config: if the store
// has none or another, the membership writes it back or joins that one, and until then everything stays as it is.
func (a *agent) takeSnapshot(s *state.Snapshot) {
	isOther := a.config != nil && (s.Config == nil || !s.Config.Equal(*a.config))
	if isOther {
		s = withConfig(s, a.config)
	}
	for _, skipped := range s.Skipped {
		text := skipped.String()
		if a.snapshot == nil || !slices.ContainsFunc(a.snapshot.Skipped, func(old state.Skipped) bool { return old.String() == text }) {
			a.Log.Warn("ignored in the store", "key", skipped.Key, "why", skipped.Err)
		}
	}
	a.snapshot = s
	if s.Config != nil {
		a.page.setFleet(s)
	}
	if own, ok := s.Nodes[a.id]; a.config != nil && (isOther || !ok || !slices.Equal(own.Prefixes, a.prefixes)) {
		a.member.recheck()
	}
}

// withConfig is the snapshot with that config.
func withConfig(s *state.Snapshot, c *state.Config) *state.Snapshot {
	with := *s
	with.Config = c
	return &with
}

// takeJoined takes in what the store granted.
func (a *agent) takeJoined(ctx context.Context, j joined) error {
	if a.joined && !a.config.Equal(j.config) {
		return fmt.Errorf("the fleet's config has changed from %s to %s: restart the agent to join that one",
			state.Encode(a.config), state.Encode(j.config))
	}
	if a.config == nil || !a.config.Equal(j.config) { // the cache's may be of an earlier fleet
		a.memory = newMemory(time.Duration(j.config.Hold))
	}
	if a.prefixes != nil && !slices.Equal(a.prefixes, j.prefixes) {
		a.Log.Error("another node has this one's prefixes: boxes of the old ones are cut off", "old", a.prefixes, "new", j.prefixes)
	}
	a.config, a.prefixes, a.joined, a.settled = &j.config, j.prefixes, true, false
	if a.snapshot != nil {
		a.snapshot = withConfig(a.snapshot, a.config)
		a.page.setFleet(a.snapshot)
	}
	if !a.answering {
		a.answering = true
		a.answerProbes(ctx, j.generation)
	}
	return nil
}

// answerProbes answers what peers ask when they explain why they do not reach this node.
func (a *agent) answerProbes(ctx context.Context, generation uint64) {
	r, err := probe.Listen(ctx, probe.Self{Host: a.probeHost(a.config), ID: a.id, Generation: generation, Allow: a.page.knows})
	if err != nil {
		a.Log.Warn("peers cannot ask why they do not reach this node", "error", err)
		return
	}
	a.tasks.Go(func() {
		if err := r.Serve(ctx); err != nil {
			a.Log.Warn("peers cannot ask any more why they do not reach this node", "error", err)
		}
	})
}

// probeHost is the node as probe sees it.
func (a *agent) probeHost(c *state.Config) probe.Host {
	return probe.Host{
		NS: a.Host, Tunnel: a.wire.Link(), Owner: a.wire.Owner(), Port: c.Port, Hidden: c.Mode == state.WireGuard,
	}
}

// look reads where this node is reached, and tells the store if that changed.
func (a *agent) look(ctx context.Context) error {
	links, err := a.wire.Underlay(ctx, *a.config)
	if err != nil {
		return err
	}
	if slices.EqualFunc(links, a.underlay, func(x, y plan.Underlay) bool {
		return x.Index == y.Index && x.MTU == y.MTU && slices.Equal(x.Addrs, y.Addrs)
	}) {
		return nil
	}
	has, err := link.ListAddrs(ctx, a.Host)
	if err != nil {
		return err
	}
	var addrs []netip.Addr
	for _, addr := range has {
		addrs = append(addrs, addr.Prefix.Addr().WithZone(""))
	}
	a.store.Moved(addrs)
	p := place{mtu: links[0].MTU}
	for _, l := range links {
		p.mtu = min(p.mtu, l.MTU)
		for _, addr := range l.Addrs {
			p.endpoints = append(p.endpoints, addr.Addr())
		}
	}
	slices.SortStableFunc(p.endpoints, func(x, y netip.Addr) int { return x.BitLen() - y.BitLen() }) // IPv4 first
	p.endpoints = slices.Compact(p.endpoints)
	p.endpoints = p.endpoints[:min(len(p.endpoints), state.MaxEndpoints)]
	if a.config.Mode == state.WireGuard {
		if p.key, err = a.wire.PublicKey(); err != nil {
			return err
		}
	}
	a.underlay = links
	a.member.say(p)
	return nil
}

// takeAnswers takes in which peers answered through the tunnel.
func (a *agent) takeAnswers(all []answer) {
	a.asking = false
	for _, got := range all {
		a.memory.answered(got.question, got.ok, time.Now())
		if got.ok || got.node == (state.ID{}) {
			continue
		}
		if since, down := a.memory.missedSince(got.node); down {
			a.Log.Warn("a node is down", "node", a.snapshot.Name(got.node), "missed since", since)
		}
	}
}
