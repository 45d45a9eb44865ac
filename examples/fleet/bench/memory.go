//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/route"
)

var memoryRow = row{
	name: "memory", rounds: 3, run: runMemory,
	work: "An agent as a process of its own starts in a fleet of 1,000 recorded peers and applies them; then 100 of them change one by one",
}

const (
	agentPeak  = "agent: the most it ever had (VmHWM)"
	agentRSS   = "agent, settled (VmRSS)"
	agentAnon  = "agent, settled, without the program's file (RssAnon)"
	idleAnon   = "Go runtime and packages alone (RssAnon)"
	idleFile   = "Go runtime and packages alone: pages of the program's file (VmRSS - RssAnon)"
	follAnon   = "etcd client that follows the fleet, alone (RssAnon)"
	agentUp    = "from the process's start until it is ready, all routes new"
	agentAgain = "from the process's start until it is ready, nothing to do"
	reconcile  = "one comparison with nothing to do or one changed peer, inside the agent"
)

func runMemory(ctx context.Context, b *bout) (err error) {
	n := b.size(1000, 60)
	w, err := newWorld(ctx, b.rounds)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if _, err := w.record(ctx, b, n); err != nil {
		return err
	}
	for i := range b.rounds {
		if err := w.memoryOnce(ctx, b, w.nodes()[i], n); err != nil {
			return err
		}
	}
	b.atMost(fmt.Sprintf("agent with %d peers, VmHWM, largest", n), agentPeak, 1, 40)
	b.note("The Go runtime and the packages have %s MiB of the agent's RssAnon before anything is done, the etcd client with the fleet's values %s MiB on top of that. "+
		"The rest is the plan, the routes that netlink reads and writes, the status and its JSON.",
		number(b.series(idleAnon, "").quantile(0.5)), number(b.series(follAnon, "").quantile(0.5)-b.series(idleAnon, "").quantile(0.5)))
	return nil
}

// memoryOnce starts the programs on a host, one after the other.
func (w *world) memoryOnce(ctx context.Context, b *bout, h *lab.Host, peers int) error {
	for _, p := range []struct {
		series string
		*lab.Process
	}{
		{idleAnon, h.Program("idle")},
		{follAnon, h.Program("follower", w.store.Endpoints(), strconv.Itoa(peers))},
	} {
		if err := p.Start(); err != nil {
			return err
		}
		if err := p.WaitOutput(ctx, "ready"); err != nil {
			return err
		}
		m, err := memoryOf(p.Pid())
		if err != nil {
			return err
		}
		b.add(p.series, "MiB", m.anon)
		if p.series == idleAnon {
			b.add(idleFile, "MiB", m.rss-m.anon)
		}
		if err := p.Kill(); err != nil {
			return err
		}
	}
	p := w.process(h)
	began := time.Now()
	if err := p.Start(); err != nil {
		return err
	}
	if err := w.readyWith(ctx, h, p, peers); err != nil {
		return err
	}
	b.took(agentUp, time.Since(began))
	if err := w.churn(ctx, b, h, b.size(100, 10)); err != nil {
		return err
	}
	m, err := memoryOf(p.Pid())
	if err != nil {
		return err
	}
	b.add(agentPeak, "MiB", m.peak)
	b.add(agentRSS, "MiB", m.rss)
	b.add(agentAnon, "MiB", m.anon)
	if err := p.Kill(); err != nil {
		return err
	}
	began = time.Now()
	if err := p.Start(); err != nil {
		return err
	}
	if err := w.readyWith(ctx, h, p, peers); err != nil {
		return err
	}
	b.took(agentAgain, time.Since(began))
	_, err = p.Stop(ctx)
	return err
}

// readyWith waits until an agent is ready and its kernel has the routes to so many peers.
func (w *world) readyWith(ctx context.Context, h *lab.Host, p *lab.Process, peers int) error {
	if err := ready(ctx, h, p); err != nil {
		return err
	}
	return w.waitRoutes(ctx, []*lab.Host{h}, peers)
}

// follows reports whether a route is the one to a node as it is now.
func follows(r route.Route, n state.Node) bool {
	return r.Dst == n.Prefixes[0] && r.Metrics != nil && int(r.Metrics.MTU) == n.MTU-plan.Overhead(state.Tunnel, n.Endpoints[0])
}

// churn changes recorded peers one by one, and waits each time until the agent has followed.
func (w *world) churn(ctx context.Context, b *bout, h *lab.Host, n int) error {
	s, err := w.open()
	if err != nil {
		return err
	}
	defer s.Close()
	snapshot, err := s.Snapshot(ctx)
	if err != nil {
		return err
	}
	const count, sum = "boxwire_fleet_reconcile_seconds_count", "boxwire_fleet_reconcile_seconds_sum"
	counted, err := metric(ctx, h, count)
	if err != nil {
		return err
	}
	summed, err := metric(ctx, h, sum)
	if err != nil {
		return err
	}
	for _, node := range snapshot.Sorted() {
		if node.Name == h.Name || len(node.Endpoints) != 1 {
			continue
		}
		if n--; n < 0 {
			break
		}
		node.MTU--
		if err := s.PutNode(ctx, node); err != nil {
			return err
		}
		err := w.wait(ctx, []*lab.Host{h}, func(h *lab.Host) error {
			routes, err := route.List(ctx, h.NS, route.Filter{Protocol: owner, Family: route.IPv4})
			if err == nil && !slices.ContainsFunc(routes, func(r route.Route) bool { return follows(r, node) }) {
				err = fmt.Errorf("a change of %s does not arrive", node.Name)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	counted2, err := metric(ctx, h, count)
	if err != nil {
		return err
	}
	summed2, err := metric(ctx, h, sum)
	if err != nil {
		return err
	}
	b.add(reconcile, "ms", (summed2-summed)/(counted2-counted)*1000)
	return nil
}
