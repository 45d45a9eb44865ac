package failures

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
)

// spec says what a world begins with. The store has hosts of its own, on the first segment.
type spec struct {
	nodes   []int // the segment of each node
	members int   // of the store; 0 is 1
	hold    string
	ttl     string
}

// world is a fleet whose agents are processes.
type world struct {
	*lab.Lab
	t      *testing.T
	etcd   *lab.Store
	client *clientv3.Client
	spec   spec
	nodes  []*node
	began  time.Time
}

// node is a machine of the fleet, with one box.
type node struct {
	*lab.Process // the agent
	w            *world
	host         *lab.Host
	dir, socket  string
	box          *lab.Box
	prefixes     []netip.Prefix
}

// newWorld makes a fleet, and returns when each node has a box and knows all others.
func newWorld(t *testing.T, s spec) *world {
	t.Helper()
	t.Parallel()
	s.members = max(s.members, 1)
	if s.hold == "" {
		s.hold = "2s"
	}
	if s.ttl == "" {
		s.ttl = "2s"
	}
	w := &world{t: t, spec: s, began: time.Now(), Lab: labtest.New(t, lab.Options{Segments: make([]int, slices.Max(s.nodes)+1)})}
	var members []*lab.Host
	for range s.members {
		members = append(members, w.host(0))
	}
	var err error
	w.etcd, err = w.StartStore(w.soon(), members...)
	w.must(err)
	w.client, err = w.etcd.Client(members[0])
	w.must(err)
	t.Cleanup(func() { w.client.Close() })
	for _, segment := range s.nodes {
		w.add(segment)
	}
	for _, n := range w.nodes {
		w.must(n.Start())
	}
	for _, n := range w.nodes {
		n.knows(len(w.nodes) - 1)
		n.plug()
	}
	for i, n := range w.nodes {
		w.reach(n, w.nodes[(i+1)%len(w.nodes)])
	}
	w.step("all is up")
	return w
}

// step says in the test's log how long it took to get here.
func (w *world) step(what string) {
	w.t.Helper()
	w.t.Logf("%6.2f s: %s", time.Since(w.began).Seconds(), what)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// soon ends long after everything should have happened.
func (w *world) soon() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	w.t.Cleanup(cancel)
	return ctx
}

// host adds a host.
func (w *world) host(segment int) *lab.Host {
	w.t.Helper()
	h, err := w.AddHost(w.soon(), segment)
	w.must(err)
	return h
}

// add adds a node whose agent does not run yet.
func (w *world) add(segment int) *node {
	w.t.Helper()
	n := &node{w: w, host: w.host(segment)}
	n.dir, n.socket = filepath.Join(n.host.Dir, "state"), filepath.Join(n.host.Dir, "agent.sock")
	n.Process = n.host.Program("fleet", "agent", "-name", "lab", "-node", n.host.Name, "-state", n.dir, "-socket", n.socket,
		"-store", w.etcd.Endpoints(), "-insecure", "-v", "-hold", w.spec.hold, "-ttl", w.spec.ttl)
	w.nodes = append(w.nodes, n)
	return n
}

// hold is the fleet's.
func (w *world) hold() time.Duration {
	d, err := time.ParseDuration(w.spec.hold)
	w.must(err)
	return d
}

// until polls until what() has nothing to say.
func (w *world) until(what func() error) {
	w.t.Helper()
	err := what()
	for deadline := time.Now().Add(2 * time.Minute); err != nil; err = what() {
		if time.Now().After(deadline) {
			w.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// state is what the agent says.
func (n *node) state() (status.State, error) {
	if !n.Running() {
		return status.State{}, fmt.Errorf("%s has ended: %s", n.Name, n.Output())
	}
	return status.Get(n.w.t.Context(), n.socket)
}

// knows waits until the agent is ready and so many peers are there and up.
func (n *node) knows(peers int) status.State {
	n.w.t.Helper()
	var s status.State
	n.w.until(func() (err error) {
		if s, err = n.state(); err != nil {
			return err
		}
		up := 0
		for _, p := range s.Peers {
			if p.Alive && !p.Down && p.Endpoint.IsValid() {
				up++
			}
		}
		if !s.Ready || up != peers {
			return fmt.Errorf("%s knows %d peers, want %d: %+v", n.Name, up, peers, s)
		}
		return nil
	})
	n.prefixes = s.Prefixes
	return s
}

// peer is what the agent says of another node.
func (n *node) peer(of *node) (status.Peer, error) {
	s, err := n.state()
	if err != nil {
		return status.Peer{}, err
	}
	for _, p := range s.Peers {
		if p.Name == of.host.Name {
			return p, nil
		}
	}
	return status.Peer{}, fmt.Errorf("%s does not know %s", n.Name, of.host)
}

// sees waits until the agent's view of a peer is as wanted.
func (n *node) sees(of *node, what string, ok func(status.Peer) bool) {
	n.w.t.Helper()
	n.w.until(func() error {
		p, err := n.peer(of)
		if err == nil && !ok(p) {
			err = fmt.Errorf("%s does not see %s as %s: %+v", n.Name, of.host, what, p)
		}
		return err
	})
}

// plug makes the node's box.
func (n *node) plug() { n.box = n.newBox(1) }

// newBox makes a box by what the agent says, or has left in its directory.
func (n *node) newBox(k int) *lab.Box {
	n.w.t.Helper()
	s, err := n.state()
	if err != nil {
		s, err = status.Read(n.dir)
	}
	n.w.must(err)
	var addrs []netip.Prefix
	for _, p := range s.Prefixes {
		a := state.Gateway(p)
		for range k {
			a = a.Next()
		}
		addrs = append(addrs, netip.PrefixFrom(a, p.Bits()))
	}
	b, err := n.host.Box(n.w.soon(), lab.BoxSpec{Addrs: addrs, MTU: s.MTU})
	n.w.must(err)
	return b
}

// reach waits until packets pass from one node's box to another's, by each family.
func (w *world) reach(from, to *node) {
	w.t.Helper()
	w.reachBox(from.box, to.box)
}

func (w *world) reachBox(from, to *lab.Box) {
	w.t.Helper()
	for _, addr := range to.Addrs {
		if err := lab.Reach(w.soon(), from.NS, to.NS, addr.Addr()); err != nil {
			w.t.Fatalf("%v to %v: %v", from, to, err)
		}
	}
}

// reaches reports whether packets pass now.
func (w *world) reaches(from, to *node) bool {
	ctx, cancel := context.WithTimeout(w.t.Context(), 500*time.Millisecond)
	defer cancel()
	return lab.Reach(ctx, from.box.NS, to.box.NS, to.box.Addr()) == nil
}

// page reads a page of the agent's socket.
func (n *node) page(path string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.socket)
		},
	}}
	resp, err := client.Get("http://agent/" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// metric is one of the agent's metrics.
func (n *node) metric(name string) (float64, error) {
	text, err := n.page("metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "boxwire_fleet_"+name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s has no metric %s", n.Name, name)
}

// connected waits until the agents say that the store answers, or that it does not.
func (w *world) connected(want float64, nodes ...*node) {
	w.t.Helper()
	for _, n := range nodes {
		w.until(func() error {
			got, err := n.metric("store_connected")
			if err == nil && got != want {
				err = fmt.Errorf("%s: store_connected is %v, want %v\n%s", n.Name, got, want, n.Output())
			}
			return err
		})
	}
}
