//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
)

// member keeps what the store has of this node: the fleet's config if the store lost it, the node's claims, the node and its alive
// key. It works beside the agent's loop, because each of its steps may wait for the store for long.
type member struct {
	store  *store.Store
	log    *slog.Logger
	fits   func(context.Context, state.Config, ...netip.Prefix) error // whether a fleet of the config works on this machine
	tell   func(error)                                                // why the store does not have the node; nil: it does
	node   state.Node                                                 // what does not change while the agent runs
	config state.Config                                               // the fleet's, or if it has none, what it will be
	want   state.Config                                               // what the user asked for
	named  []string                                                   // the fields in which the fleet's config must agree with that
	prefer []netip.Prefix                                             // what the node had, or has
	told   bool                                                       // the loop knows config and prefer

	checked bool // the fleet of the config fits this machine

	out chan joined // what the store granted; the loop reads it

	wake chan struct{}

	mu    sync.Mutex // guards the following
	says  *place     // where the node is reached, nil until it is known
	held  bool       // the alive key was this agent's once: no other agent speaks for the node
	doubt bool       // config and claims may be missing in the store
}

// place is where a node is reached.
type place struct {
	endpoints []netip.Addr
	mtu       int
	key       string // WireGuard's
}

// joined is what the store granted.
type joined struct {
	config     state.Config
	prefixes   []netip.Prefix
	generation uint64
}

func newMember(a *agent) *member {
	return &member{
		store: a.store, log: a.Log, fits: a.fits, tell: a.page.setJoin, config: a.Config, want: a.Config, named: a.Named,
		node: state.Node{Version: state.Version, ID: a.id, Name: a.Name},
		out:  make(chan joined), wake: make(chan struct{}, 1), doubt: true,
	}
}

// say tells where the node is reached. The store gets it when it can. It may be called from any goroutine, like nudge.
func (m *member) say(p place) {
	m.mu.Lock()
	m.says = &p
	m.mu.Unlock()
	m.nudge()
}

// recheck has all keys of this node in the store compared with what they should be.
func (m *member) recheck() {
	m.mu.Lock()
	m.doubt = true
	m.mu.Unlock()
	m.nudge()
}

// nudge has join go on.
func (m *member) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run keeps the node's keys until ctx ends, or until an error that no time mends.
func (m *member) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer func() {
		cancel()
		tasks.Wait()
	}()
	taken := make(chan error, 1) // another agent has this identity
	lacks := trouble{log: func(err error) { m.log.Warn("the store does not have this node yet", "error", err) }}
	for wait := time.Duration(0); ; {
		err := m.join(ctx, func(a state.Alive, ttl time.Duration) { tasks.Go(func() { taken <- m.keepAlive(ctx, a, ttl) }) })
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			wait = 0
		case errors.As(err, new(*finalError)) || errors.As(err, new(*store.TakenError)):
			return err
		default: // what is wrong in the store, with a certificate or with a link may be mended while the agent waits
			wait = min(max(2*wait, 250*time.Millisecond), 5*time.Second)
		}
		lacks.is(err)
		m.tell(err)
		var again <-chan time.Time
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-taken:
			return err
		case <-m.wake:
		case <-again:
		}
	}
}

// join makes the keys of this node what they should be, and tells the loop what the store granted. It has keepAlive begun once.
//
// The alive key comes before all that others act on: an agent with a copied identity claims what is its own already, and then is
// refused. A fleet that does not fit this machine gets nothing from it, and neither does a store whose first config would not.
func (m *member) join(ctx context.Context, keepAlive func(state.Alive, time.Duration)) error {
	m.mu.Lock()
	doubt := m.doubt
	m.doubt = false
	m.mu.Unlock()
	if doubt {
		if err := m.claim(ctx); err != nil {
			m.mu.Lock()
			m.doubt = true
			m.mu.Unlock()
			return err
		}
	}
	if m.node.Generation == 0 {
		known, err := m.store.Generation(ctx, m.node.ID)
		if err != nil {
			return err
		}
		n := m.node
		n.Generation = known + 1
		a, err := here(n)
		if err != nil {
			return err
		}
		m.node = n
		keepAlive(a, time.Duration(m.config.TTL))
	}
	m.mu.Lock()
	says, held := m.says, m.held
	m.mu.Unlock()
	if !held {
		return nil // that will wake this
	}
	if !m.told {
		select {
		case m.out <- joined{m.config, m.prefer, m.node.Generation}:
			m.told = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if says == nil {
		return nil // the loop will say it
	}
	n := m.node
	n.Endpoints, n.MTU, n.PublicKey, n.Prefixes = says.endpoints, says.mtu, says.key, m.prefer
	return m.store.PutNode(ctx, n)
}

// claim makes the fleet's config and the node's claims what they should be.
func (m *member) claim(ctx context.Context) error {
	if err := m.agreeOn(ctx); err != nil {
		return err
	}
	prefixes, err := m.store.Claim(ctx, m.node.ID, m.config, m.prefer...)
	if err != nil {
		return err
	}
	m.prefer, m.told = prefixes, false
	return nil
}

// agreeOn makes m.config the fleet's, and writes it if the fleet has none. It is checked before anything is written.
func (m *member) agreeOn(ctx context.Context) error {
	for {
		if !m.checked {
			if err := m.check(ctx); err != nil {
				return err
			}
		}
		config, err := m.store.EnsureConfig(ctx, m.config)
		if err != nil {
			return err
		}
		if config.Equal(m.config) {
			return nil
		}
		m.checked = false // another node was faster, or the store came back with another config
	}
}

// check reports why the fleet does not fit this machine. It asks the store what the fleet's config is, and changes nothing.
func (m *member) check(ctx context.Context) error {
	fleet, claimed, err := m.store.Known(ctx, m.node.ID)
	if err != nil {
		return err
	}
	config := m.config
	if fleet != nil {
		config = *fleet
		if err := agree(config, m.want, m.named); err != nil {
			return err
		}
	}
	own := append(slices.Clone(m.prefer), claimed...)
	if err := m.fits(ctx, config, own...); err != nil {
		return err
	}
	m.config, m.checked = config, true
	return nil
}

// finalError is one that ends the agent: a person has to change something.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// keepAlive keeps the alive key until ctx ends or another agent has it.
func (m *member) keepAlive(ctx context.Context, a state.Alive, ttl time.Duration) error {
	for {
		err := m.store.KeepAlive(ctx, a, ttl, func() {
			m.mu.Lock()
			m.doubt = m.doubt || m.held // it was lost meanwhile, and what else?
			m.held = true
			m.mu.Unlock()
			m.nudge()
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, new(*store.TakenError)):
			return err
		}
		m.log.Warn("the store does not say that this agent runs", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// here says where this process runs.
func here(n state.Node) (state.Alive, error) {
	a := state.Alive{Version: state.Version, ID: n.ID, Generation: n.Generation, Instance: state.NewID(), Pid: os.Getpid()}
	var err error
	if a.Machine, err = os.Hostname(); err != nil {
		return a, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return a, err
	}
	a.Boot = strings.TrimSpace(string(boot))
	a.Started, err = store.ProcessStart(a.Pid)
	return a, err
}

// agree reports fields of the fleet's config that are not what the user named.
func agree(fleet, want state.Config, named []string) error {
	var differs []string
	is, should := fleet.Fields(), want.Fields()
	for _, name := range named {
		if is[name] != should[name] {
			differs = append(differs, fmt.Sprintf("%s is %s and not %s", name, is[name], should[name]))
		}
	}
	if len(differs) == 0 {
		return nil
	}
	slices.Sort(differs)
	return &finalError{fmt.Errorf("the fleet exists with another config: %s; leave out what differs to join it: %w", strings.Join(differs, ", "), os.ErrInvalid)}
}
