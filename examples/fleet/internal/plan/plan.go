package plan

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/route"
)

// LastMetric is the metric of the routes that catch what no other route does.
const LastMetric = 1<<32 - 1

// ttl is that of the tunnel's packets, whatever the host's default is.
const ttl = 64

// Self is the node that the plan is for.
type Self struct {
	ID       state.ID
	Prefixes []netip.Prefix // what the node has claimed, at most one of each family
	Tunnel   int            // index of the tunnel link
	Underlay []Underlay     // the links that lead to peers, the preferred first
}

// Underlay is a link that leads to peers.
type Underlay struct {
	Index int
	Name  string // for people
	MTU   int
	Addrs []netip.Prefix // the node's own addresses there, each with the length of its subnet
}

// Plan is what a node's kernel must have.
type Plan struct {
	Routes  []route.Route    // all of the fleet's, in the order in which they are to be added; without a protocol
	Ways    map[state.ID]Way // how the peers are reached, for people; of the first prefix, if they differ
	Peers   []Peer           // of the WireGuard link, by ID
	Kept    []netip.Prefix   // destinations of kept routes; a WireGuard peer that has one stays
	Trusted []netip.Prefix   // the pools; packets to them keep their source addresses. Empty only in a Plan of no fleet.
	Skipped []Skipped        // peers that are not applied, or not whole, by ID

	WireGuard bool // the tunnel link is one, and has exactly the Peers
}

// Way is how a peer is reached.
type Way struct {
	Mode     state.Mode // never auto
	Endpoint netip.Addr
	MTU      int // of packets to the peer's boxes
}

// Peer is a peer of a WireGuard link.
type Peer struct {
	ID       state.ID
	Key      [32]byte
	Endpoint netip.AddrPort
	Allowed  []netip.Prefix
}

// Skipped is a peer, or a prefix of it, that a Plan leaves out, and why. Its addresses are unreachable then.
type Skipped struct {
	ID     state.ID
	Name   string       // what people call the peer
	Prefix netip.Prefix // the zero Prefix if it is the whole peer
	Why    string
}

func (s Skipped) String() string {
	if s.Prefix.IsValid() {
		return fmt.Sprintf("%s: %v: %s", s.Name, s.Prefix, s.Why)
	}
	return s.Name + ": " + s.Why
}

// For plans for a Snapshot, which has a Config; without one, the Plan is of no fleet, and nothing can be done with it.
//
// The peers in down get a route that refuses packets, in the place of the one that leads to them: same destination and metric. keep
// are routes that are to stay, because their peers are gone from the store only for a moment. A kept route gives way to one of the
// Snapshot with the same destination, and follows the tunnel link to another index.
//
// A peer is left out by name if its prefix is not one of the fleet, or is the node's own or another peer's (the lower ID wins), if
// no endpoint is usable, if the endpoint is the node's own address, or lies in the fleet's pools.
func For(s *state.Snapshot, self Self, down map[state.ID]bool, keep []route.Route) Plan {
	if s == nil || s.Config == nil {
		return Plan{}
	}
	p := planning{
		snapshot: s, config: s.Config, self: self,
		taken: make(map[netip.Prefix]state.ID, 2*len(s.Nodes)), keys: map[[32]byte]state.ID{},
	}
	p.plan.Ways = make(map[state.ID]Way, len(s.Nodes))
	p.plan.Routes = make([]route.Route, 0, len(s.Config.Pools)+2*len(s.Nodes)+len(keep))
	p.bottom()
	for _, id := range slices.SortedFunc(maps.Keys(s.Nodes), func(a, b state.ID) int { return bytes.Compare(a[:], b[:]) }) {
		if id != self.ID {
			p.peer(s.Nodes[id], down[id])
		}
	}
	p.keep(keep)
	return p.plan
}

// planning is a For under way.
type planning struct {
	snapshot *state.Snapshot
	config   *state.Config
	self     Self

	plan  Plan
	taken map[netip.Prefix]state.ID // who has a prefix
	keys  map[[32]byte]state.ID     // who has a public key
}

// bottom plans the routes beneath all others.
func (p *planning) bottom() {
	p.plan.Trusted = slices.Clone(p.config.Pools)
	p.plan.WireGuard = p.config.Mode == state.WireGuard
	last := func(dst netip.Prefix) {
		p.plan.Routes = append(p.plan.Routes, route.Route{Dst: dst, Type: route.TypeUnreachable, Metric: LastMetric})
	}
	for _, pool := range p.config.Pools {
		last(pool)
	}
	for _, own := range p.self.Prefixes {
		p.taken[own] = p.self.ID
		if !slices.Contains(p.config.Pools, own) {
			last(own)
		}
	}
	if key, ok := publicKey(p.snapshot.Nodes[p.self.ID]); ok {
		p.keys[key] = p.self.ID
	}
}

// peer plans one peer.
func (p *planning) peer(n state.Node, down bool) {
	prefixes := make([]netip.Prefix, 0, 2)
	for _, prefix := range n.Prefixes {
		switch by, taken := p.taken[prefix]; {
		case !p.config.Contains(prefix):
			p.skip(n, prefix, "not a node's prefix of the fleet's pools")
		case taken:
			p.skip(n, prefix, "of "+p.name(by))
		default:
			p.taken[prefix] = n.ID
			prefixes = append(prefixes, prefix)
		}
	}
	if len(prefixes) == 0 {
		return
	}
	switch p.config.Mode {
	case state.WireGuard:
		p.wireguard(n, prefixes, down)
	default:
		for _, prefix := range prefixes {
			if down {
				p.down(prefix)
			} else {
				p.way(n, prefix)
			}
		}
	}
}

// down plans the route to a peer that is down: in the place of the other one.
func (p *planning) down(dst netip.Prefix) {
	p.plan.Routes = append(p.plan.Routes, route.Route{Dst: dst, Type: route.TypeUnreachable})
}

// way plans the route to a prefix of a peer in the modes tunnel, direct and auto.
func (p *planning) way(n state.Node, dst netip.Prefix) {
	if p.config.Mode != state.Tunnel {
		gateway, on, why := p.neighbour(n, dst)
		if on != nil {
			p.add(n, route.Route{Dst: dst, Via: gateway, Dev: on.Index}, Way{state.Direct, gateway, min(on.MTU, n.MTU)})
			return
		}
		if p.config.Mode == state.Direct {
			if why == "" {
				why = fmt.Sprintf("none of its endpoints %v is on a link of this node and can be a gateway of the prefix", n.Endpoints)
			}
			p.skip(n, dst, why)
			return
		}
	}
	outer, mtu, why := p.endpoint(n)
	if why != "" {
		p.skip(n, dst, why)
		return
	}
	encap := route.IPEncap{ID: uint64(p.config.VNI), Dst: outer, TTL: ttl}
	if outer.Is6() {
		encap.Flags = route.TunnelChecksum // IPv6 drops UDP packets without one (RFC 8200, section 8.1)
	}
	p.add(n, route.Route{Dst: dst, Dev: p.self.Tunnel, Encap: encap}, Way{state.Tunnel, outer, mtu - Overhead(state.Tunnel, outer)})
}

// wireguard plans a peer of the WireGuard link and the routes to it. A peer that is down stays one, so that it comes back at once.
func (p *planning) wireguard(n state.Node, prefixes []netip.Prefix, down bool) {
	key, ok := publicKey(n)
	outer, mtu, why := p.endpoint(n)
	if by, taken := p.keys[key]; taken {
		why = "its public key is of " + p.name(by)
	}
	if !ok {
		why = "it has no public key of WireGuard"
	}
	switch {
	case why == "":
		p.keys[key] = n.ID
		p.plan.Peers = append(p.plan.Peers, Peer{
			ID: n.ID, Key: key, Endpoint: netip.AddrPortFrom(outer, p.config.Port), Allowed: prefixes,
		})
	case !down:
		p.skip(n, netip.Prefix{}, why)
		return
	}
	for _, dst := range prefixes {
		if down {
			p.down(dst)
		} else {
			p.add(n, route.Route{Dst: dst, Dev: p.self.Tunnel}, Way{state.WireGuard, outer, mtu - Overhead(state.WireGuard, outer)})
		}
	}
}

// add adds a route to a peer with what all of them have.
func (p *planning) add(n state.Node, r route.Route, way Way) {
	if least := LeastMTU(r.Dst.Addr()); way.MTU < least {
		p.skip(n, r.Dst, fmt.Sprintf("packets to it can have %d bytes only, and %d are the least", way.MTU, least))
		return
	}
	if _, ok := p.plan.Ways[n.ID]; !ok {
		p.plan.Ways[n.ID] = way
	}
	r.Metrics = &route.Metrics{MTU: uint32(way.MTU)}
	for _, own := range p.self.Prefixes {
		if own.Addr().Is4() == r.Dst.Addr().Is4() {
			r.Src = state.Gateway(own)
		}
	}
	p.plan.Routes = append(p.plan.Routes, r)
}

// name is what people call a node.
func (p *planning) name(id state.ID) string {
	if id == p.self.ID {
		return "this node"
	}
	return p.snapshot.Name(id)
}

func (p *planning) skip(n state.Node, prefix netip.Prefix, why string) {
	p.plan.Skipped = append(p.plan.Skipped, Skipped{n.ID, p.snapshot.Name(n.ID), prefix, why})
}

// publicKey returns the WireGuard key of a node.
func publicKey(n state.Node) (key [32]byte, ok bool) {
	b, err := base64.StdEncoding.Strict().DecodeString(n.PublicKey)
	if err != nil || len(b) != len(key) {
		return key, false
	}
	return [32]byte(b), true
}
