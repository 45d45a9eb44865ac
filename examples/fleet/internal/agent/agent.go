//go:build linux

// Package agent keeps one node of a fleet: it claims the node's prefix, says in the store where the node is reached, and makes
// the kernel's routes to the other nodes what the store says.
//
// An agent touches the difference only. Nothing changes in the kernel because an agent starts, stops or is upgraded, or because
// the store is away or came back empty: a peer's route changes when the peer says something else, or when it neither has an alive
// key nor answers.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
	"github.com/boxwire/boxwire/examples/fleet/internal/wire"
	"github.com/boxwire/boxwire/internal/privilege"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// GCPercent is what a program that is an agent and nothing else gives debug.SetGCPercent. An agent does little, and is to be small: with
// 1,000 peers this is some MiB less than Go's default of 100.
const GCPercent = 50

// Options are what an agent is told at its start.
type Options struct {
	Host     *netns.NS     // the node's network namespace; the handle stays open while the agent runs
	Fleet    string        // the fleet's name
	Name     string        // the node's name, for people
	StateDir string        // where identity, key and last known state are kept; it is made
	Socket   string        // the unix socket of the status; "" is none
	Metrics  string        // a TCP address with /metrics and /ready; "" is none
	Wire     wire.Options  // Dir is set by the agent
	Config   state.Config  // of the fleet, if it has none yet
	Named    []string      // the fields of Config, by their names in JSON, that the fleet must agree with
	Store    *store.Config // Fleet is set by the agent
	Log      *slog.Logger  // nil: none

	// Embed is a store in this process, which starts and ends with the agent; nil: none. Store's endpoints are the socket that it
	// listens on besides, then.
	Embed *store.EmbedConfig
}

// agent is a node's agent. Its fields belong to the goroutine of Run, but for those that say otherwise.
type agent struct {
	Options
	id       state.ID
	store    *store.Store
	embedded *store.Embedded // nil: none
	wire     *wire.Wire
	metrics  *metrics // for all
	member   *member
	page     *page  // for all
	saver    *saver // for all
	closers  []io.Closer
	tasks    sync.WaitGroup // for all; they end when the context of Run ends
	answers  chan []answer

	config    *state.Config // nil until it is known
	prefixes  []netip.Prefix
	joined    bool // the store has granted config and prefixes
	underlay  []plan.Underlay
	snapshot  *state.Snapshot // nil until one is known
	last      *state.Snapshot // what the cache had at the start
	away      bool            // the store is
	requests  requests        // to the store, about nodes that are down
	memory    *memory
	asking    bool          // an echo is on its way
	settled   bool          // nobody has changed the kernel since the last round, which ended well
	tunnel    link.Link     // as of the last round
	routes    []route.Route // likewise
	done      round         // the last one that planned
	answering bool          // peers' probes
	backoff   time.Duration // after a reconcile that failed
	trouble   string        // why the node is not ready, as it was logged; "" if it is
}

// round is what a round was about, and what came of it.
type round struct {
	config *state.Config
	nodes  map[state.ID]state.Node
	sorted []state.Node
	verdict
	plan plan.Plan
}

// Run keeps the node until ctx ends, and then returns nil. It returns an error that cannot mend itself: bad options, a state
// directory of another fleet, another agent on this machine or with this identity, pools that overlap the machine's networks.
// The kernel keeps its links and routes in each case.
func Run(ctx context.Context, o Options) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	a, err := open(ctx, o)
	defer func() {
		cancel()
		a.tasks.Wait()
		for _, c := range slices.Backward(a.closers) {
			err = errors.Join(err, c.Close())
		}
	}()
	switch {
	case err != nil && ctx.Err() != nil:
		return nil // it was told to end while it began
	case err != nil:
		return err
	}
	return a.loop(ctx)
}

// open checks the options and opens what the agent needs. It changes nothing outside the state directory. With an error, the agent
// has what is to be closed.
func open(ctx context.Context, o Options) (*agent, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Wire.Dir = o.StateDir
	a := &agent{Options: o, trouble: "it has no prefix yet", metrics: newMetrics(), answers: make(chan []answer, 1), requests: requests{}}
	if err := errors.Join(state.ValidFleet(o.Fleet), state.ValidName(o.Name), o.Config.Validate()); err != nil {
		return a, err
	}
	if hint := privilege.NetAdmin.MissingIn(o.Host); hint != "" {
		return a, fmt.Errorf("an agent changes the links and routes of its machine: %s: %w", hint, os.ErrPermission)
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return a, fmt.Errorf("state directory (-state): %w", err)
	}
	a.wire = wire.New(o.Host, o.Wire)
	if err := a.withoutIPv6(ctx); err != nil {
		return a, err
	}
	lock, err := takeLock(ctx, o.Host, a.wire.Link(), a.wire.Owner())
	if err != nil {
		return a, err
	}
	a.closers = append(a.closers, lock)
	if a.id, err = loadIdentity(o.StateDir, o.Fleet); err != nil {
		return a, err
	}
	if a.page, err = openPage(ctx, a); err != nil {
		return a, err
	}
	a.closers = append(a.closers, a.page)
	if err := a.openStore(ctx); err != nil {
		return a, err
	}
	a.member = newMember(a)
	a.saver = newSaver(o.StateDir, a.id, o.Log)
	a.closers = append(a.closers, a.saver)
	return a, a.recall(ctx)
}

// withoutIPv6 leaves IPv6 out of what the fleet will be if it has no config yet, on a machine without it, unless the user asked for it.
func (a *agent) withoutIPv6(ctx context.Context) error {
	if slices.Contains(a.Named, "pools") {
		return nil
	}
	has, err := a.wire.HasIPv6(ctx)
	if err == nil && !has {
		a.Config.Pools = a.Config.PoolsOf(netns.IPv4)
	}
	return err
}

// openStore starts the embedded store, if there is to be one, and makes the client. It does not wait for another store.
func (a *agent) openStore(ctx context.Context) (err error) {
	cfg := *a.Store
	cfg.Fleet = a.Fleet
	if a.Embed != nil {
		// The agent's own way to it is a socket that no other user can open, whatever it listens on for others.
		path := filepath.Join(a.StateDir, "etcd.sock")
		own := "unix://" + path
		embed := *a.Embed
		embed.Listen = append([]string{own}, embed.Listen...)
		if a.embedded, err = store.StartEmbed(ctx, embed); err != nil {
			return err
		}
		a.closers = append(a.closers, closer(a.embedded.Close))
		if err := os.Chmod(path, 0o600); err != nil { // the directory may be one that others enter
			return err
		}
		cfg.Endpoints = []string{own}
	}
	if a.store, err = store.Open(cfg); err != nil {
		return err
	}
	a.closers = append(a.closers, a.store)
	return nil
}

// closer is a Close that cannot fail.
type closer func()

func (c closer) Close() error {
	c()
	return nil
}

// fits reports why a fleet of the config does not work on this machine. own are the prefixes that the node has already. A machine
// that is not on the network yet may be later, and a kernel that is busy answers later; any other reason is final.
func (a *agent) fits(ctx context.Context, c state.Config, own ...netip.Prefix) error {
	if _, err := a.wire.Underlay(ctx, c); errors.Is(err, os.ErrNotExist) {
		if overlap := a.wire.CheckPools(ctx, c, own...); overlap != nil { // what it lacks is in a pool
			return &finalError{overlap}
		}
		return err
	}
	err := a.wire.Check(ctx, c, own...)
	for _, final := range []error{os.ErrInvalid, os.ErrExist, os.ErrPermission, errors.ErrUnsupported} {
		if errors.Is(err, final) {
			return &finalError{err}
		}
	}
	return err
}

// recall reads what the agent knew when it last ran. If the store is away, adopt uses it. The kernel has all of that already, unless
// the machine has started anew or somebody has changed it.
func (a *agent) recall(ctx context.Context) error {
	last, err := loadCache(a.StateDir)
	if err != nil {
		a.Log.Warn("going on without it", "error", err)
	}
	if last != nil && last.Config != nil {
		if err := agree(*last.Config, a.Config, a.Named); err != nil {
			return err
		}
		a.member.config = *last.Config
		if own, ok := last.Nodes[a.id]; ok {
			a.member.prefer = own.Prefixes
			a.last = last
			return nil
		}
	}
	// An agent that was killed right after it joined has not kept that yet. The machine's boxes have the prefixes all the same.
	routes, err := a.wire.Routes(ctx)
	for _, r := range routes {
		if r.Metric == plan.LastMetric && a.member.config.Contains(r.Dst) {
			a.member.prefer = append(a.member.prefer, r.Dst)
		}
	}
	return err
}

// adopt goes on with what the agent knew, because the store is away. A store that answers is asked first: this may be a copy of a
// node that runs on another machine.
func (a *agent) adopt() {
	if a.last == nil || a.config != nil {
		return
	}
	a.Log.Warn("going on with what this node knew before")
	a.config, a.prefixes = a.last.Config, a.last.Nodes[a.id].Prefixes
	a.memory = newMemory(time.Duration(a.config.Hold))
	if a.snapshot == nil {
		a.snapshot = a.last
		a.page.setFleet(a.last)
	}
}
