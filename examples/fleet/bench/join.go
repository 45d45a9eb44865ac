//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

var joinRow = row{
	name: "join", rounds: 10, run: runJoin,
	work: "A new node joins 100 others; each of their kernels sends UDP packets to it through the tunnel until one is answered",
}

var addressRow = row{
	name: "address", rounds: 10, run: runAddress,
	work: "One of 100 nodes gets another address on its uplink; each of the others sends to it until a packet is answered that was sent after the change",
}

// mesh makes a world whose nodes all reach each other.
func mesh(ctx context.Context, n int) (*world, error) {
	w, err := newWorld(ctx, n)
	if err != nil {
		return nil, err
	}
	for _, h := range w.nodes() {
		w.start(ctx, h)
	}
	if err := w.waitRoutes(ctx, w.nodes(), n-1); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// spaces are the namespaces of hosts.
func spaces(hosts []*lab.Host) []*netns.NS {
	var all []*netns.NS
	for _, h := range hosts {
		all = append(all, h.NS)
	}
	return all
}

func runJoin(ctx context.Context, b *bout) (err error) {
	n := b.size(100, 8)
	w, err := mesh(ctx, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	peers := spaces(w.nodes())
	for range b.rounds {
		if err := errors.Join(w.joinOne(ctx, b, peers), w.forgetNeighbours(ctx)); err != nil {
			return err
		}
	}
	b.atMost(fmt.Sprintf("node key written until a peer of %d reaches it, p99", n), joinFromKey, 0.99, 250)
	b.note("Each agent, of all nodes together, needs %s ms of processor time for one joining node (median): that is what a peer's machine spends.",
		number(b.series(joinCPU, "").quantile(0.5)/float64(n)))
	return nil
}

// forgetNeighbours empties the hosts' tables of neighbours. All namespaces of a machine share their room
// (net.ipv4.neigh.default.gc_thresh3, 1024): what 100 hosts know of each other fills it, and then packets wait until entries are
// old enough to go.
func (w *world) forgetNeighbours(ctx context.Context) error {
	return atOnce(w.Hosts, 4, func(h *lab.Host) error {
		l, err := link.Get(ctx, h.NS, h.Uplink())
		if err != nil {
			return err
		}
		return l.FlushNeighbours(ctx, nil)
	})
}

const (
	joinFromKey   = "from the agent's first packet to the store with its node's key, to one peer"
	joinFromStart = "from the start of its agent, to one peer"
	joinAll       = "from the start of its agent, to all peers"
	joinCPU       = "processor time of all agents and the prober in that time"
)

// joinOne adds a node and measures how it becomes known.
func (w *world) joinOne(ctx context.Context, b *bout, peers []*netns.NS) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	h, err := w.AddHost(ctx, 0)
	if err != nil {
		return err
	}
	probers, err := newProbers(ctx, peers)
	if err != nil {
		return err
	}
	defer closeProbers(probers)
	server, err := echo(ctx, h.NS)
	if err != nil {
		return err
	}
	defer server.Close()
	claim, err := w.watchClaim(ctx)
	if err != nil {
		return err
	}
	defer claim.close()

	o := agentOptions(h.NS, h.Name, h.Dir, w.store.Endpoints())
	says := &firstWord{word: []byte("/node/"), at: make(chan time.Time, 1)}
	o.Store.Dial = says.dial(h.NS.Dial)
	began, busy := time.Now(), processorTime()
	w.startWith(context.WithoutCancel(ctx), h, o)
	addr, err := claim.wait(ctx)
	if err != nil {
		return errors.Join(err, w.failed())
	}
	times, err := probeAll(ctx, probers, addr, began)
	if err != nil {
		return errors.Join(err, w.failed())
	}
	busy = processorTime() - busy
	written := <-says.at // peers reach it, so it was written
	var last time.Time
	for _, at := range times {
		b.took(joinFromKey, at.Sub(written))
		b.took(joinFromStart, at.Sub(began))
		if at.After(last) {
			last = at
		}
	}
	b.took(joinAll, last.Sub(began))
	b.took(joinCPU, busy)
	return nil
}

// firstWord notes when a program first sends a word.
type firstWord struct {
	word []byte
	at   chan time.Time
	seen atomic.Bool
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dial has the connections of a dial function watched.
func (f *firstWord) dial(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &watchedConn{c, f}, nil
	}
}

// watchedConn is a connection without TLS.
type watchedConn struct {
	net.Conn
	first *firstWord
}

func (c *watchedConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, c.first.word) && !c.first.seen.Swap(true) {
		c.first.at <- time.Now()
	}
	return c.Conn.Write(b)
}

// nextClaim is the next node's claim, as another client of the store sees it.
type nextClaim struct {
	client *clientv3.Client
	prefix chan netip.Prefix
}

// watchClaim waits for the next claim of an IPv4 prefix.
func (w *world) watchClaim(ctx context.Context) (*nextClaim, error) {
	c, err := w.client()
	if err != nil {
		return nil, err
	}
	n := &nextClaim{client: c, prefix: make(chan netip.Prefix, 1)}
	root := state.Root(fleetName)
	watch := c.Watch(ctx, root+"claim/", clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithFilterDelete())
	select {
	case <-watch: // the watch has begun
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), c.Close())
	}
	go func() {
		for resp := range watch {
			for _, e := range resp.Events {
				if p, err := state.ParseClaimKey(string(e.Kv.Key)[len(root):]); err == nil && p.Addr().Is4() {
					select {
					case n.prefix <- p:
					default:
					}
				}
			}
		}
	}()
	return n, nil
}

// wait returns the node's own address.
func (n *nextClaim) wait(ctx context.Context) (netip.Addr, error) {
	select {
	case p := <-n.prefix:
		return state.Gateway(p), nil
	case <-ctx.Done():
		return netip.Addr{}, fmt.Errorf("no claim: %w", ctx.Err())
	}
}

func (n *nextClaim) close() { n.client.Close() }

func runAddress(ctx context.Context, b *bout) (err error) {
	n := b.size(100, 8)
	w, err := mesh(ctx, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	mover, others := w.nodes()[0], w.nodes()[1:]
	addr, err := gateway(ctx, mover, "fl0", false)
	if err != nil {
		return err
	}
	server, err := echo(ctx, mover.NS)
	if err != nil {
		return err
	}
	defer server.Close()
	for range b.rounds {
		if err := b.moveOnce(ctx, mover, others, addr); err != nil {
			return errors.Join(err, w.failed())
		}
		if err := w.forgetNeighbours(ctx); err != nil {
			return err
		}
	}
	b.atMost(fmt.Sprintf("until all of %d follow, largest", n-1), moveAll, 1, 1000)
	return nil
}

const (
	moveOne = "until a peer follows"
	moveAll = "until all peers follow"
)

func (b *bout) moveOnce(ctx context.Context, mover *lab.Host, others []*lab.Host, addr netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	probers, err := newProbers(ctx, spaces(others))
	if err != nil {
		return err
	}
	defer closeProbers(probers)
	began := time.Now()
	if err := mover.ChangeAddrs(ctx); err != nil {
		return err
	}
	times, err := probeAll(ctx, probers, addr, time.Now())
	if err != nil {
		return err
	}
	var last time.Time
	for _, at := range times {
		b.took(moveOne, at.Sub(began))
		if at.After(last) {
			last = at
		}
	}
	b.took(moveAll, last.Sub(began))
	return nil
}
