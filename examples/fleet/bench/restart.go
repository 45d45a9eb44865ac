//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

var restartRow = row{
	name: "restart", rounds: 10, run: runRestart,
	work: "An agent is killed by SIGKILL and started again, under a stream of UDP packets each way between a box of its host and one of another, 1 ms apart; the kernel's changes on its host are counted",
}

var repairRow = row{
	name: "repair", rounds: 20, run: runRepair,
	work: "Somebody deletes fl0 on a host of three; another host sends to it until a packet is answered that was sent after that",
}

const (
	restartLost   = "packets lost, both ways"
	restartWrites = "changes of links, addresses and routes"
	restartReady  = "from the start until the agent is ready"
	repaired      = "from the deletion until packets pass"
)

func runRestart(ctx context.Context, b *bout) (err error) {
	w, err := newWorld(ctx, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	var agents []*lab.Process
	for _, h := range w.nodes() {
		p := w.process(h)
		if err := p.Start(); err != nil {
			return err
		}
		agents = append(agents, p)
	}
	if err := w.waitRoutes(ctx, w.nodes(), 2); err != nil {
		return err
	}
	addrs, err := w.joined(ctx, w.nodes())
	if err != nil {
		return err
	}
	r := restarter{
		host: w.nodes()[0], process: agents[0], prefix: "",
		ready: func(ctx context.Context) error { return ready(ctx, w.nodes()[0], agents[0]) },
	}
	if err := r.boxes(ctx, w.nodes()[1], addrs[0], addrs[1], 1464); err != nil {
		return err
	}
	for range b.rounds {
		if err := r.once(ctx, b); err != nil {
			return err
		}
	}
	b.atMost("packets lost, most of a restart", restartLost, 1, 0)
	b.atMost("changes of the kernel, most of a restart", restartWrites, 1, 0)
	b.note("%s packets were sent.", number(r.sent))
	return nil
}

// A restarter kills the program that keeps a host, and starts it again.
type restarter struct {
	host    *lab.Host
	process *lab.Process
	prefix  string // of the names of the series
	ready   func(context.Context) error
	near    *lab.Box
	far     *lab.Box
	sent    float64
}

// boxes makes a box on the host and one on another, next to the gateways.
func (r *restarter) boxes(ctx context.Context, other *lab.Host, here, there netip.Addr, mtu int) (err error) {
	spec := func(gateway netip.Addr) lab.BoxSpec {
		return lab.BoxSpec{Addrs: []netip.Prefix{netip.PrefixFrom(gateway.Next(), 24)}, MTU: mtu}
	}
	if r.near, err = r.host.Box(ctx, spec(here)); err != nil {
		return err
	}
	if r.far, err = other.Box(ctx, spec(there)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return lab.Reach(ctx, r.near.NS, r.far.NS, r.far.Addr())
}

// once restarts the program once.
func (r *restarter) once(ctx context.Context, b *bout) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	writes, err := lab.CountWrites(ctx, r.host.NS)
	if err != nil {
		return err
	}
	var streams []*lab.Stream
	for _, way := range [][2]*lab.Box{{r.near, r.far}, {r.far, r.near}} {
		s, serr := lab.StartStream(ctx, way[0].NS, way[1].NS, way[1].Addr(), lab.StreamOptions{})
		if serr != nil {
			err = serr
			break
		}
		streams = append(streams, s)
	}
	// Packets pass before, between and afterwards.
	pass := func() {
		for _, s := range streams {
			if err == nil {
				err = s.WaitReceived(ctx, 100)
			}
		}
	}
	pass()
	if err == nil {
		err = r.process.Kill()
	}
	pass()
	began := time.Now()
	if err == nil {
		err = r.process.Start()
	}
	if err == nil {
		err = r.ready(ctx)
	}
	took := time.Since(began)
	pass()
	lost := 0.0
	for _, s := range streams {
		stats, serr := s.Stop(ctx)
		err = errors.Join(err, serr)
		lost += float64(stats.Lost + stats.Refused)
		r.sent += float64(stats.Sent)
	}
	changes, werr := writes.Stop(ctx)
	if err := errors.Join(err, werr); err != nil {
		return fmt.Errorf("%w; the program says:\n%s", err, r.process.Output())
	}
	changes = slices.DeleteFunc(changes, isKernels)
	if len(changes) > 0 {
		b.note("A restart changed: %v.", changes[:min(len(changes), 8)])
	}
	b.add(r.prefix+restartLost, "packets", lost)
	b.add(r.prefix+restartWrites, "changes", float64(len(changes)))
	b.took(r.prefix+restartReady, took)
	return nil
}

// isKernels reports whether the kernel has made a change by itself: it finds out that the link-local address of a box's new link is
// nobody else's.
func isKernels(c lab.Change) bool { return c.Port == 0 && strings.Contains(c.What, " fe80::") }

func runRepair(ctx context.Context, b *bout) (err error) {
	w, err := mesh(ctx, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	host, other := w.nodes()[0], w.nodes()[1]
	addr, err := gateway(ctx, host, "fl0", false)
	if err != nil {
		return err
	}
	server, err := echo(ctx, host.NS)
	if err != nil {
		return err
	}
	defer server.Close()
	for range b.rounds {
		if err := repairOnce(ctx, b, host.NS, other.NS, addr); err != nil {
			return errors.Join(err, w.failed())
		}
	}
	b.atMost("packets pass again, largest", repaired, 1, 100)
	return nil
}

func repairOnce(ctx context.Context, b *bout, here, there *netns.NS, addr netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	probers, err := newProbers(ctx, []*netns.NS{there})
	if err != nil {
		return err
	}
	defer closeProbers(probers)
	tunnel, err := link.Get(ctx, here, "fl0")
	if err != nil {
		return err
	}
	began := time.Now()
	if err := tunnel.Delete(ctx); err != nil {
		return err
	}
	times, err := probeAll(ctx, probers, addr, time.Now())
	if err != nil {
		return err
	}
	b.took(repaired, times[0].Sub(began))
	return nil
}
