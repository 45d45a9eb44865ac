//go:build linux

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/probe"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// page answers on the agent's unix socket: /ready with 200 or 503, /metrics in Prometheus' form, /state with a status.State, and
// /explain?peer=NAME with why a peer is not reached. A TCP address, if there is one, has the first two. Its methods may be called
// by any goroutine.
type page struct {
	agent   *agent // of it, what does not change
	servers []*http.Server
	serving sync.WaitGroup

	mu    sync.Mutex // guards the following
	state *status.State
	why   error // it is not ready
	store error // the store is away
	join  error // the store does not have the node
	fleet *state.Snapshot
}

// openPage serves the status. A socket that no one listens on any more is replaced.
func openPage(ctx context.Context, a *agent) (*page, error) {
	p := &page{agent: a, why: errors.New("the node has no prefix yet")}
	open := http.NewServeMux()
	open.HandleFunc("GET /ready", p.ready)
	open.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{}))
	own := http.NewServeMux()
	own.Handle("/", open)
	own.HandleFunc("GET /state", p.write)
	own.HandleFunc("GET /explain", p.explain)
	if a.Socket != "" {
		ln, err := listenUnix(ctx, a.Socket)
		if err != nil {
			return nil, fmt.Errorf("socket of the status (-socket): %w", err)
		}
		p.serve(ln, own)
	}
	if a.Metrics != "" {
		ln, err := a.Host.Listen(ctx, "tcp", a.Metrics)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("address of the metrics (-metrics): %w", err), p.Close())
		}
		p.serve(ln, open)
	}
	return p, nil
}

// serve answers until Close.
func (p *page) serve(ln net.Listener, h http.Handler) {
	// Whoever connects and says nothing is not waited for: the metrics may be open to strangers.
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 3 * time.Minute}
	p.servers = append(p.servers, server)
	p.serving.Go(func() { _ = server.Serve(ln) })
}

// Close ends the page and removes the socket.
func (p *page) Close() error {
	var errs []error
	for _, server := range p.servers {
		errs = append(errs, server.Close())
	}
	p.serving.Wait()
	return errors.Join(errs...)
}

func (p *page) ready(w http.ResponseWriter, _ *http.Request) {
	if why := p.notReady(); why != nil {
		http.Error(w, why.Error(), http.StatusServiceUnavailable)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(w, oneLine("ready"+p.outside()))
}

// notReady is why the node is not ready, with what keeps it from becoming ready; nil if it is.
func (p *page) notReady() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == nil {
		return nil
	}
	return errors.New(oneLine(p.why.Error() + p.outside()))
}

// outside is what is wrong with the store. The mutex is held.
func (p *page) outside() string {
	switch {
	case p.store != nil:
		return "; the store is away: " + p.store.Error()
	case p.join != nil:
		return "; the store does not have this node: " + p.join.Error()
	}
	return ""
}

// oneLine is a text without line breaks.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

func (p *page) write(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	now := p.state
	p.mu.Unlock()
	if now == nil {
		http.Error(w, fmt.Sprint(p.notReady()), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(now)
}

// explain says why the peer is not reached.
func (p *page) explain(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	fleet, away := p.fleet, p.store
	p.mu.Unlock()
	if fleet == nil {
		http.Error(w, fmt.Sprint(p.notReady()), http.StatusServiceUnavailable)
		return
	}
	report, err := probe.Explain(r.Context(), probe.Question{
		Host: p.agent.probeHost(fleet.Config), Self: p.agent.id, Snapshot: fleet, Store: away, Peer: r.FormValue("peer"),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if len(report.Findings) > 0 {
		w.WriteHeader(http.StatusConflict)
	}
	fmt.Fprint(w, report)
}

// setFleet says what is known of the fleet.
func (p *page) setFleet(s *state.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fleet = s
}

// knows reports whether an address is one of the fleet's: a peer's endpoint, or in the pools.
func (p *page) knows(a netip.Addr) bool {
	p.mu.Lock()
	fleet := p.fleet
	p.mu.Unlock()
	if fleet == nil {
		return false
	}
	if slices.ContainsFunc(fleet.Config.Pools, func(pool netip.Prefix) bool { return pool.Contains(a) }) {
		return true
	}
	for _, n := range fleet.Nodes {
		if slices.Contains(n.Endpoints, a) {
			return true
		}
	}
	return false
}

// setStore says whether the store answers: nil if it does.
func (p *page) setStore(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.store = err
}

// setJoin says why the store does not have the node as it is: nil if it does.
func (p *page) setJoin(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.join = err
}

// setWhy says why the node is not ready, whatever it was before.
func (p *page) setWhy(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why = why
	if p.state != nil && p.state.Ready {
		now := *p.state
		now.Ready = false
		p.state = &now
	}
}

// setState says what there is, and why the node is not ready; nil if it is. It reports whether that is new.
func (p *page) setState(s *status.State, why error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.state == nil || !p.state.Equal(*s)
	p.state, p.why = s, why
	return changed
}

// show publishes what the agent has done for the snapshot, on the page and in the state directory.
func (a *agent) show(v verdict, err error) {
	up, p := 0, a.done.plan
	s := &status.State{
		Version: status.Version, Fleet: a.Fleet, ID: a.id, Name: a.Name, Prefixes: a.prefixes, Pools: a.config.Pools,
		Link: a.wire.Link(), MTU: a.tunnel.MTU, Mode: a.config.Mode, Ready: err == nil, Peers: make([]status.Peer, 0, len(a.done.sorted)),
	}
	problems := map[state.ID]string{}
	for _, skipped := range p.Skipped {
		problems[skipped.ID] = skipped.Why
	}
	for _, n := range a.done.sorted {
		if n.ID == a.id {
			continue
		}
		_, alive := a.snapshot.Alive[n.ID]
		peer := status.Peer{
			ID: n.ID, Name: n.Name, Prefixes: n.Prefixes, Alive: alive, Down: v.down[n.ID], Problem: problems[n.ID],
		}
		if way, ok := p.Ways[n.ID]; ok {
			peer.Endpoint, peer.Mode, peer.MTU = way.Endpoint, way.Mode, way.MTU
		}
		s.Peers = append(s.Peers, peer)
		if !peer.Down {
			up++
		}
	}
	a.metrics.peers.WithLabelValues("up").Set(float64(up))
	a.metrics.peers.WithLabelValues("down").Set(float64(len(s.Peers) - up))
	a.metrics.skipped.Set(float64(len(a.snapshot.Skipped) + len(p.Skipped)))
	ready := 0.0
	if err == nil {
		ready = 1
	}
	a.metrics.ready.Set(ready)
	if a.page.setState(s, err) {
		a.saver.keepState(s)
	}
}
