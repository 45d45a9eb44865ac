package agent

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/route"
)

// memory decides which peers are down and which routes outlive their claim.
//
// A store says who was there a moment ago, and not who can be reached: it may come back empty, or revoke all leases with its
// leader, and an agent may be stopped for an upgrade. So what the store lacks is a question, asked after the hold: does the
// peer's kernel answer through the tunnel? Only a peer that does not is down.
//
// An agent that starts has no memory. It takes over what the kernel shows: a peer whose route is unreachable is down, and one
// with a working route is up.
type memory struct {
	hold  time.Duration
	nodes map[state.ID]*absence
	lost  map[netip.Prefix]*absence // of routes that nobody claims
	known map[state.ID]bool         // nodes that were judged once
}

// absence is how long something has been missing, and what is known of it.
type absence struct {
	since time.Time // when it was first missed
	ask   time.Time // when to ask whether it answers
	down  bool      // it did not answer
}

func newMemory(hold time.Duration) *memory {
	return &memory{
		hold: hold, nodes: map[state.ID]*absence{}, lost: map[netip.Prefix]*absence{}, known: map[state.ID]bool{},
	}
}

// verdict is what the memory says of a snapshot.
type verdict struct {
	down map[state.ID]bool
	keep []route.Route // routes that stay, though nobody claims their destination
	ask  []question    // what has to be asked before the next verdict
	next time.Time     // when the next verdict is due; zero if nothing but an event can change this one
}

// question is whether one of the addresses answers. It is about a node, or about a route if the node is zero.
type question struct {
	node  state.ID
	dst   netip.Prefix
	addrs []netip.Addr
}

// judge compares the snapshot with the routes that the kernel has of this fleet.
func (m *memory) judge(s *state.Snapshot, self state.ID, routes []route.Route, now time.Time) verdict {
	v := verdict{down: map[state.ID]bool{}}
	present := sync.OnceValue(func() map[netip.Prefix]route.Route { return presentRoutes(routes) })
	for id, n := range s.Nodes {
		if id != self {
			m.judgeNode(&v, s, n, present, now)
		}
	}
	slices.SortFunc(v.ask, func(x, y question) int { return bytes.Compare(x.node[:], y.node[:]) })
	gone := func(id state.ID) bool { _, ok := s.Nodes[id]; return !ok }
	maps.DeleteFunc(m.nodes, func(id state.ID, _ *absence) bool { return gone(id) })
	maps.DeleteFunc(m.known, func(id state.ID, _ bool) bool { return gone(id) })
	m.judgeRoutes(&v, s, routes, now)
	return v
}

// presentRoutes finds the routes by destination, that of the lowest metric. Those that catch what no other does say nothing of a peer:
// this node's own prefix has one, and keeps it when another node claims the prefix.
func presentRoutes(routes []route.Route) map[netip.Prefix]route.Route {
	present := map[netip.Prefix]route.Route{}
	for _, r := range routes {
		if old, ok := present[r.Dst]; r.Metric != plan.LastMetric && (!ok || r.Metric < old.Metric) {
			present[r.Dst] = r
		}
	}
	return present
}

// judgeNode says whether a node is down, and what has to be asked to know it.
func (m *memory) judgeNode(v *verdict, s *state.Snapshot, n state.Node, present func() map[netip.Prefix]route.Route, now time.Time) {
	first := !m.known[n.ID]
	m.known[n.ID] = true
	if _, ok := s.Alive[n.ID]; ok {
		delete(m.nodes, n.ID)
		return
	}
	a := m.nodes[n.ID]
	if a == nil {
		a = &absence{since: now, ask: now.Add(m.hold)}
		m.nodes[n.ID] = a
		if first {
			_, dead := s.Dead[n.ID]
			a.down = wasDown(n, present(), dead)
		}
	}
	if a.down {
		v.down[n.ID] = true
		return
	}
	q := question{node: n.ID}
	for _, p := range n.Prefixes {
		q.addrs = append(q.addrs, state.Gateway(p))
	}
	v.due(a, q, now)
}

// wasDown reports whether a node is down for an agent that sees it for the first time: the kernel says so, or has no route to
// it and the store says so.
func wasDown(n state.Node, present map[netip.Prefix]route.Route, dead bool) bool {
	for _, p := range n.Prefixes {
		switch r, ok := present[p]; {
		case !ok:
		case r.Type == route.TypeUnreachable:
			return true
		default:
			return false
		}
	}
	return dead
}

// judgeRoutes keeps the routes whose destination no node has claimed, until the hold is over and nobody answers there.
func (m *memory) judgeRoutes(v *verdict, s *state.Snapshot, routes []route.Route, now time.Time) {
	claimed := map[netip.Prefix]bool{}
	for _, n := range s.Nodes {
		for _, p := range n.Prefixes {
			claimed[p] = true
		}
	}
	seen := map[netip.Prefix]bool{}
	for _, r := range routes {
		if claimed[r.Dst] || s.Config == nil || !s.Config.Contains(r.Dst) || seen[r.Dst] {
			continue
		}
		seen[r.Dst] = true
		a := m.lost[r.Dst]
		if a == nil {
			a = &absence{since: now, ask: now.Add(m.hold)}
			m.lost[r.Dst] = a
		}
		if a.down || !leads(r) && !now.Before(a.ask) {
			continue
		}
		v.keep = append(v.keep, r)
		v.due(a, question{dst: r.Dst, addrs: []netip.Addr{state.Gateway(r.Dst)}}, now)
	}
	maps.DeleteFunc(m.lost, func(p netip.Prefix, _ *absence) bool { return !seen[p] })
	slices.SortFunc(v.keep, func(a, b route.Route) int { return a.Dst.Compare(b.Dst) })
}

// leads reports whether a route leads to a peer. A route of a plan may leave that to the default.
func leads(r route.Route) bool { return r.Type == route.TypeUnicast || r.Type == 0 }

// due adds the question if its time has come, and otherwise says when it comes.
func (v *verdict) due(a *absence, q question, now time.Time) {
	if !now.Before(a.ask) {
		v.ask = append(v.ask, q)
		return
	}
	if v.next.IsZero() || a.ask.Before(v.next) {
		v.next = a.ask
	}
}

// answered takes in whether somebody answered. One who does is asked again after the hold, and once a second at most.
func (m *memory) answered(q question, ok bool, now time.Time) {
	a := m.lost[q.dst]
	if q.node != (state.ID{}) {
		a = m.nodes[q.node]
	}
	if a == nil || now.Before(a.ask) {
		return // it came back meanwhile, and may be missing anew: that has a hold of its own
	}
	if !ok {
		a.down = true
		return
	}
	a.ask = now.Add(max(m.hold, time.Second))
}

// missedSince is when a node that is down was first missed.
func (m *memory) missedSince(id state.ID) (time.Time, bool) {
	if a := m.nodes[id]; a != nil && a.down {
		return a.since, true
	}
	return time.Time{}, false
}
