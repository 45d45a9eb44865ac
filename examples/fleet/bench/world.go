//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/boxwire/boxwire/examples/fleet/internal/agent"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

const (
	fleetName = "bench"
	owner     = route.Protocol(201)
)

// A world is a lab with an etcd of one member, which has a machine of its own, and the fleet's agents in this process.
type world struct {
	*lab.Lab
	store  *lab.Store
	keeper *lab.Host // the machine of the store

	mu     sync.Mutex // guards the following fields
	agents map[*lab.Host]*running
}

// running is an agent in this process.
type running struct {
	stop context.CancelFunc
	done chan struct{}
	err  error // once done is closed
}

// newWorld makes a world with a number of hosts besides the store's.
func newWorld(ctx context.Context, hosts int) (w *world, err error) {
	l, err := lab.New(ctx, lab.Options{Segments: []int{1 + hosts}})
	if err != nil {
		return nil, err
	}
	w = &world{Lab: l, keeper: l.Hosts[0], agents: map[*lab.Host]*running{}}
	if w.store, err = l.StartStore(ctx, w.keeper); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return w, nil
}

// nodes are the hosts but the store's.
func (w *world) nodes() []*lab.Host { return w.Hosts[1:] }

// close ends agents and lab.
func (w *world) close() error {
	w.mu.Lock()
	var errs []error
	for _, a := range w.agents {
		a.stop()
	}
	for h, a := range w.agents {
		<-a.done
		if a.err != nil {
			errs = append(errs, fmt.Errorf("agent of %s: %w", h.Name, a.err))
		}
	}
	w.mu.Unlock()
	return errors.Join(append(errs, w.Close())...)
}

// fleetConfig has room for a thousand nodes, and tunnels to all of them: the hosts are neighbours.
func fleetConfig() state.Config {
	c := state.DefaultConfig()
	c.Pools = []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10"), netip.MustParsePrefix("fd99::/48")}
	c.Mode = state.Tunnel
	c.Hold = state.Duration(10 * time.Minute) // recorded nodes have no agent that answers
	return c
}

// agentOptions are those of a host's agent.
func agentOptions(ns *netns.NS, name, dir, endpoints string) agent.Options {
	return agent.Options{
		Host: ns, Fleet: fleetName, Name: name, StateDir: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "agent.sock"),
		Config: fleetConfig(), Store: &store.Config{Endpoints: strings.Split(endpoints, ","), Insecure: true, Dial: ns.Dial},
	}
}

// start starts the agent of a host in this process.
func (w *world) start(ctx context.Context, h *lab.Host) *running {
	return w.startWith(ctx, h, agentOptions(h.NS, h.Name, h.Dir, w.store.Endpoints()))
}

func (w *world) startWith(ctx context.Context, h *lab.Host, o agent.Options) *running {
	ctx, cancel := context.WithCancel(ctx)
	a := &running{stop: cancel, done: make(chan struct{})}
	w.mu.Lock()
	w.agents[h] = a
	w.mu.Unlock()
	go func() {
		defer close(a.done)
		a.err = agent.Run(ctx, o)
	}()
	return a
}

// failed is why an agent has ended, nil if none has.
func (w *world) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for h, a := range w.agents {
		select {
		case <-a.done:
			return fmt.Errorf("the agent of %s has ended: %w", h.Name, a.err)
		default:
		}
	}
	return nil
}

// client is a plain client of the store, as anybody has it.
func (w *world) client() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: strings.Split(w.store.Endpoints(), ","), Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return w.keeper.NS.Dial(ctx, "tcp", addr)
		})},
	})
}

// open opens the store as an agent on the store's machine does.
func (w *world) open() (*store.Store, error) {
	return store.Open(store.Config{
		Fleet: fleetName, Endpoints: strings.Split(w.store.Endpoints(), ","), Insecure: true, Dial: w.keeper.NS.Dial,
	})
}

// waitRoutes waits until the kernel of each host has routes to a number of peers, of both families.
func (w *world) waitRoutes(ctx context.Context, hosts []*lab.Host, peers int) error {
	return w.wait(ctx, hosts, func(h *lab.Host) error {
		n, err := peerRoutes(ctx, h.NS)
		if err == nil && n < families()*peers {
			err = fmt.Errorf("%s has %d of the %d routes to %d peers", h.Name, n, families()*peers, peers)
		}
		return err
	})
}

// families is how many families the fleet has.
func families() int { return 2 }

// peerRoutes counts the routes to peers.
func peerRoutes(ctx context.Context, ns *netns.NS) (int, error) {
	routes, err := route.List(ctx, ns, route.Filter{Protocol: owner, Type: route.TypeUnicast})
	return len(routes), err
}

// wait waits until something is so on each host. What has been so once is not looked at again.
func (w *world) wait(ctx context.Context, hosts []*lab.Host, ok func(*lab.Host) error) error {
	for _, h := range hosts {
		for {
			err := ok(h)
			if err == nil {
				break
			}
			if ferr := w.failed(); ferr != nil {
				return ferr
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%w: %w", err, ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// gateway is a host's own address in the overlay, of a family; the zero Addr if it has none yet.
func gateway(ctx context.Context, h *lab.Host, link string, is6 bool) (netip.Addr, error) {
	addrs, err := linkAddrs(ctx, h.NS, link)
	for _, a := range addrs {
		if a.Addr().Is6() == is6 && !a.Addr().IsLinkLocalUnicast() {
			return a.Addr(), nil
		}
	}
	if err == nil {
		err = fmt.Errorf("%s has no address on %s: %w", h.Name, link, os.ErrNotExist)
	}
	return netip.Addr{}, err
}

// joined are the overlay's addresses of hosts, once each has one.
func (w *world) joined(ctx context.Context, hosts []*lab.Host) ([]netip.Addr, error) {
	addrs := make([]netip.Addr, 0, len(hosts))
	err := w.wait(ctx, hosts, func(h *lab.Host) error {
		a, err := gateway(ctx, h, "fl0", false)
		if err == nil {
			addrs = append(addrs, a)
		}
		return err
	})
	return addrs, err
}

// atOnce calls a function for many things, some at a time, and joins the errors.
func atOnce[T any](things []T, workers int, fn func(T) error) error {
	var all sync.WaitGroup
	errs := make([]error, len(things))
	turn := make(chan struct{}, workers)
	for i, t := range things {
		turn <- struct{}{}
		all.Go(func() {
			errs[i] = fn(t)
			<-turn
		})
	}
	all.Wait()
	return errors.Join(errs...)
}
