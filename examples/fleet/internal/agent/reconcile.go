//go:build linux

package agent

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/probe"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/wire"
	"github.com/boxwire/boxwire/route"
)

// reconcile makes the kernel what the snapshot asks for, and says when that has to be done again; zero if time alone changes
// nothing. What it cannot do it logs and tries again. A kernel that has all of it gets no write.
func (a *agent) reconcile(ctx context.Context) (next time.Time) {
	if a.config == nil || a.snapshot == nil || a.snapshot.Config == nil || len(a.prefixes) == 0 {
		return time.Time{}
	}
	began := time.Now()
	a.metrics.reconciles.Inc()
	v, err := a.apply(ctx, began)
	a.metrics.duration.Observe(time.Since(began).Seconds())
	if ctx.Err() != nil {
		return time.Time{}
	}
	a.report(err)
	var later time.Time
	if err == nil || errors.As(err, new(*wire.RefusedError)) { // a route that is refused is no reason to leave dead peers as they are
		a.ask(ctx, v)
		later = sooner(v.next, a.tellDead(ctx, v, began))
	}
	if err != nil {
		a.metrics.failures.Inc()
		a.metrics.ready.Set(0)
		a.page.setWhy(err)
		a.backoff = min(max(2*a.backoff, 50*time.Millisecond), 5*time.Second)
		return sooner(later, began.Add(a.backoff))
	}
	a.backoff = 0
	a.metrics.revision.Set(float64(a.snapshot.Revision))
	return later
}

// ask asks what the verdict has to know, beside the loop. While the store is away nobody is asked: only the store could say that one
// who did not answer is back.
func (a *agent) ask(ctx context.Context, v verdict) {
	if len(v.ask) == 0 || a.asking || a.away {
		return
	}
	a.asking = true
	own := gateways(a.prefixes)
	a.tasks.Go(func() { a.answers <- a.askAll(ctx, own, v.ask) })
}

// sooner is the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// gateways are the node's own addresses in the overlay.
func gateways(prefixes []netip.Prefix) []netip.Addr {
	own := make([]netip.Addr, len(prefixes))
	for i, p := range prefixes {
		own[i] = state.Gateway(p)
	}
	return own
}

// apply compares and changes. A kernel that nobody has changed since the last time is not read again.
func (a *agent) apply(ctx context.Context, now time.Time) (verdict, error) {
	if !a.settled {
		if err := a.readKernel(ctx); err != nil {
			return verdict{}, err
		}
	}
	settled := a.settled
	a.settled = false // should this fail
	v := a.memory.judge(a.snapshot, a.id, a.routes, now)
	var err error
	if !settled || !a.done.same(a.snapshot, v) {
		err = a.replan(ctx, v)
	}
	a.show(v, err)
	if err == nil {
		a.settled, a.routes = true, a.done.plan.Routes
	}
	a.saver.keep(a.snapshot)
	return v, err
}

// same reports whether the plan of a snapshot is that of the last round. Most changes are such ones: of a node that joins, the claim
// and the alive key come beside what it says of itself.
func (r *round) same(s *state.Snapshot, v verdict) bool {
	return r.config == s.Config && maps.Equal(r.down, v.down) && slices.EqualFunc(r.keep, v.keep, route.Route.Equal) &&
		maps.EqualFunc(r.nodes, s.Nodes, state.Node.Equal)
}

// replan plans and applies.
func (a *agent) replan(ctx context.Context, v verdict) error {
	self := plan.Self{ID: a.id, Prefixes: a.prefixes, Tunnel: a.tunnel.Index, Underlay: a.underlay}
	a.done = round{config: a.snapshot.Config, nodes: a.snapshot.Nodes, sorted: a.snapshot.Sorted(), verdict: v}
	a.done.plan = plan.For(a.snapshot, self, v.down, v.keep)
	did, err := a.wire.Apply(ctx, a.done.plan)
	a.count(did)
	return err
}

// readKernel reads where the node is reached and what routes there are, and makes the tunnel link what it has to be.
func (a *agent) readKernel(ctx context.Context) (err error) {
	if err := a.look(ctx); err != nil {
		return err
	}
	if a.tunnel, err = a.wire.Ensure(ctx, *a.config, a.prefixes); err != nil {
		return err
	}
	a.routes, err = a.wire.Routes(ctx)
	return err
}

// count adds what was done to the metrics, and logs it.
func (a *agent) count(did wire.Changes) {
	if !did.Any() {
		return
	}
	a.Log.Debug("kernel", "done", did.String())
	for done, n := range map[string]int{
		"route_added": did.Routes.Added, "route_replaced": did.Routes.Replaced, "route_deleted": did.Routes.Deleted,
		"peer_added": did.Peers.Added, "peer_changed": did.Peers.Changed, "peer_deleted": did.Peers.Deleted,
	} {
		if n > 0 {
			a.metrics.changes.WithLabelValues(done).Add(float64(n))
		}
	}
}

// report logs an error once while it lasts, and its end.
func (a *agent) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == a.trouble:
	case err != nil:
		a.Log.Error("the kernel is not what the fleet needs; trying again", "error", err)
	default:
		a.Log.Info("ready", "fleet", a.Fleet, "node", a.Name, "id", a.id.Short(), "prefixes", a.prefixes)
	}
	a.trouble = text
}

// answer is what came of a question.
type answer struct {
	question
	ok bool
}

// askAll asks the peers' kernels through the tunnel, twice, so that a moment without a way does not count. It may be called beside
// the loop. Without a socket to ask by, everybody counts as one who answers: nothing changes.
func (a *agent) askAll(ctx context.Context, own []netip.Addr, questions []question) []answer {
	var to []netip.Addr
	for _, q := range questions {
		to = append(to, q.addrs...)
	}
	heard := map[netip.Addr]bool{}
	for range 2 {
		got, err := probe.EchoAll(ctx, a.Host, own, to)
		if err != nil {
			if ctx.Err() == nil {
				a.Log.Warn("peers that the store misses cannot be asked, and stay", "error", err)
			}
			for _, addr := range to {
				heard[addr] = true
			}
		}
		for addr, err := range got {
			heard[addr] = heard[addr] || err == nil
		}
	}
	answers := make([]answer, len(questions))
	for i, q := range questions {
		answers[i].question = q
		for _, addr := range q.addrs {
			answers[i].ok = answers[i].ok || heard[addr]
		}
	}
	return answers
}
