//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/agent"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
	"github.com/boxwire/boxwire/examples/fleet/internal/wire"
	"github.com/boxwire/boxwire/examples/internal/selfcheck"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// fleet is everything that the quickstart wires together: host1 and host2 on one link, host3 behind a router, which also plays
// the outside. With a log alone it is an empty one.
type fleet struct {
	lab      *lab.Lab
	store    *lab.Process // etcd, on host1
	machines []*machine
	servers  []*server
	log      *slog.Logger // the agents'
}

// machine is a node of the fleet.
type machine struct {
	host     *lab.Host
	options  agent.Options
	prefixes []netip.Prefix // what it has claimed
	boxes    []*lab.Box
	gw       *nat.NAT

	cancel context.CancelFunc // of its agent; nil if none runs
	ended  chan error
}

// The fleet is quick to say that a machine is dead, because nobody wants to watch for a minute. The defaults are 60 and 10 s.
const (
	hold = time.Second
	ttl  = 2 * time.Second
)

// publishedPort leads to a box of the same machine, farPort to one of another machine.
const (
	publishedPort = 8080
	farPort       = 8081
)

// build wires the fleet. On an error the caller cleans up what is there.
func (fl *fleet) build(ctx context.Context) (err error) {
	if fl.lab, err = lab.New(ctx, lab.Options{Segments: []int{2, 1}, Named: true}); err != nil {
		return err
	}
	first := fl.lab.Hosts[0]
	url := fmt.Sprintf("http://%s:2379", first.Addr4().Addr())
	fl.store = first.Program(storeProgram, filepath.Join(first.Dir, "etcd"), url)
	if err := fl.startStore(ctx); err != nil {
		return err
	}
	for _, h := range fl.lab.Hosts {
		m := &machine{host: h, options: options(h, url, fl.log.With("agent", h.Name))}
		fl.machines = append(fl.machines, m)
		m.start(ctx)
	}
	for _, m := range fl.machines {
		s, err := m.until(ctx, "ready", whole)
		if err != nil {
			return err
		}
		if err := fl.furnish(ctx, m, s); err != nil {
			return err
		}
	}
	if err := fl.publish(ctx); err != nil {
		return err
	}
	return fl.serve(ctx, fl.lab.Router, "outside")
}

// startStore starts the store, for the first time or with the data that it had, and waits until it answers.
func (fl *fleet) startStore(ctx context.Context) error {
	if err := fl.store.Start(); err != nil {
		return err
	}
	return fl.store.WaitOutput(ctx, fmt.Sprintf(storeReady, fl.store.Pid()))
}

// options are those of a machine's agent. `fleet agent` makes them of its flags.
func options(h *lab.Host, endpoint string, log *slog.Logger) agent.Options {
	config := state.DefaultConfig()
	config.Hold, config.TTL = state.Duration(hold), state.Duration(ttl)
	if !lab.HasIPv6() {
		config.Pools = config.PoolsOf(netns.IPv4)
	}
	return agent.Options{
		Host: h.NS, Fleet: "quickstart", Name: h.Name, Config: config, Log: log,
		StateDir: filepath.Join(h.Dir, "state"), Socket: filepath.Join(h.Dir, "agent.sock"),
		// The store is dialed from the host's namespace: what cuts the host off cuts its agent off.
		Store: &store.Config{Endpoints: []string{endpoint}, Insecure: true, Dial: h.NS.Dial},
	}
}

// start runs the machine's agent until stop.
func (m *machine) start(ctx context.Context) {
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.ended = make(chan error, 1)
	go func() { m.ended <- agent.Run(ctx, m.options) }()
}

// stop ends the agent. What it has wired stays, and serves on.
func (m *machine) stop() error {
	if m.cancel == nil {
		return nil
	}
	m.cancel()
	m.cancel = nil
	return <-m.ended
}

// until waits until the agent is ready and its state is as wanted.
func (m *machine) until(ctx context.Context, what string, ok func(status.State) bool) (s status.State, err error) {
	var last string
	for {
		s, err = status.Get(ctx, m.options.Socket)
		if err == nil && s.Ready && ok(s) {
			return s, nil
		}
		if ctx.Err() == nil {
			last = fmt.Sprintf("%+v, %v", s.Peers, err)
		}
		select {
		case end := <-m.ended:
			m.cancel = nil
			return s, fmt.Errorf("the agent of %s has ended: %w", m.host.Name, end)
		case <-ctx.Done():
			return s, fmt.Errorf("%s is not %s: %w: %s", m.host.Name, what, ctx.Err(), last)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// whole says whether a machine has a way to both others.
func whole(s status.State) bool {
	up := 0
	for _, p := range s.Peers {
		if p.Alive && !p.Down && p.Endpoint.IsValid() {
			up++
		}
	}
	return up == 2
}

// isDown says whether a peer counts as dead.
func isDown(s status.State, peer string) bool {
	return slices.ContainsFunc(s.Peers, func(p status.Peer) bool { return p.Name == peer && p.Down })
}

// furnish gives a machine two boxes in its prefixes. They reach the other machines' boxes by their own addresses, and the rest
// of the world by the machine's.
func (fl *fleet) furnish(ctx context.Context, m *machine, s status.State) (err error) {
	m.prefixes = s.Prefixes
	for n := range 2 {
		spec := lab.BoxSpec{MTU: s.MTU}
		for _, p := range m.prefixes {
			addr := state.Gateway(p).Next() // the gateway's is the machine's own
			for range n {
				addr = addr.Next()
			}
			spec.Addrs = append(spec.Addrs, netip.PrefixFrom(addr, p.Bits()))
		}
		b, err := m.host.Box(ctx, spec)
		if err != nil {
			return err
		}
		m.boxes = append(m.boxes, b)
		if err := fl.serve(ctx, b.NS, b.Name); err != nil {
			return err
		}
	}
	if m.gw, err = nat.Open(ctx, m.host.NS, nat.Options{Name: "boxwire"}); err != nil {
		return err
	}
	network := nat.Network{
		Interface: lab.BoxBridge, Subnets: m.prefixes, Masquerade: true,
		Trusted: s.Trusted(), // the fleet's pools: neither masqueraded nor closed
	}
	for _, p := range m.prefixes {
		network.VisitorSNAT = append(network.VisitorSNAT, state.Gateway(p)) // so that remote boxes answer visitors by this machine
	}
	return m.gw.AddNetwork(ctx, network)
}

// publish opens two ports of host1: one leads to a box of its own, and one to a box of host3.
func (fl *fleet) publish(ctx context.Context) error {
	var ports []nat.Port
	first, last := fl.machines[0], fl.machines[len(fl.machines)-1]
	for port, box := range map[uint16]*lab.Box{publishedPort: first.boxes[0], farPort: last.boxes[0]} {
		for _, p := range box.Addrs {
			all := netip.IPv4Unspecified()
			if p.Addr().Is6() {
				all = netip.IPv6Unspecified()
			}
			ports = append(ports, nat.Port{
				Proto: nat.TCP, Owner: box.Name,
				Host: netip.AddrPortFrom(all, port), Box: netip.AddrPortFrom(p.Addr(), servicePort),
			})
		}
	}
	return first.gw.Publish(ctx, ports...)
}

// die is what happens when a machine loses its power: its cable carries nothing, and its agent and all that its kernel had of the
// fleet are gone. Its boxes' namespaces stay, which saves making them again.
func (m *machine) die(ctx context.Context) error {
	if err := m.host.Cut(ctx); err != nil {
		return err
	}
	if err := m.stop(); err != nil {
		return err
	}
	tunnel, err := link.Get(ctx, m.host.NS, wire.DefaultLink)
	if err != nil {
		return err
	}
	_, err = route.Sync(ctx, m.host.NS, wire.DefaultOwner)
	return errors.Join(err, tunnel.Delete(ctx))
}

// boot is the opposite.
func (m *machine) boot(ctx context.Context) error {
	if err := m.host.Heal(ctx); err != nil {
		return err
	}
	m.start(ctx)
	return nil
}

// cleanUp takes everything away, in the order a careful program would, and then looks at what is left.
func (fl *fleet) cleanUp(ctx context.Context, before selfcheck.Leftovers) (string, error) {
	var errs []error
	for _, s := range fl.servers {
		s.close()
	}
	for _, m := range fl.machines {
		errs = append(errs, m.stop())
		if m.gw != nil {
			errs = append(errs, m.gw.Delete(ctx))
		}
	}
	if fl.lab != nil {
		errs = append(errs, fl.lab.Close())
	}
	errs = append(errs, before.NothingSince(ctx))
	return "no namespace, mount, process or file is left", errors.Join(errs...)
}
