//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// MaxSkew is how far the clocks of two nodes may be apart before it is a finding.
const MaxSkew = 5 * time.Second

// Question is what Explain looks into.
type Question struct {
	Host                     // this node's kernel; a Port of 0, and Hidden, are filled in from the fleet's configuration
	Self     state.ID        // this node
	Snapshot *state.Snapshot // what is known of the fleet
	Store    error           // why the store is away; nil if it is there
	Peer     string          // a name, an ID, or the beginning of an ID
}

// explainer is one run of Explain.
type explainer struct {
	Question
	self, peer state.Node
	report     *Report
	wayBack    Cause // what is wrong with the peer's way to this node, by its agent
}

// Explain finds out why a peer is not reached. It looks at this host's tunnel link and routes, at the peer's endpoint on the
// underlay, and at the way through the tunnel; where the peer's agent answers, at the other host and the way back, too. It changes
// nothing. It takes CAP_NET_RAW, some hundred packets, and up to ten seconds where much is wrong.
//
// The error is that of ctx, or of a socket that this host does not give it. The report then has what was found until then.
func Explain(ctx context.Context, q Question) (Report, error) {
	e := &explainer{Question: q, report: &Report{Peer: q.Peer}}
	err := e.run(ctx)
	if q.Store != nil {
		e.report.find(StoreAway, Here, "Bring the store back; until then the nodes act on what they knew last", "the store does not answer: %v", q.Store)
	}
	if err != nil {
		err = fmt.Errorf("explain %s: %w", q.Peer, err)
	}
	return *e.report, err
}

func (e *explainer) run(ctx context.Context) error {
	if e.Snapshot == nil {
		e.report.fact("nothing is known of the fleet yet")
		return nil
	}
	if c := e.Snapshot.Config; c != nil {
		if e.Port == 0 {
			e.Port = c.Port
		}
		e.Hidden = c.Mode == state.WireGuard
	}
	if e.Port == 0 {
		return fmt.Errorf("the tunnel's port is not known: %w", syscall.EINVAL)
	}
	if !e.findPeer() {
		return nil
	}
	e.self = e.Snapshot.Nodes[e.Self]

	ways := make([]way, len(e.peer.Prefixes))
	for i, p := range e.peer.Prefixes {
		w, err := e.wayTo(ctx, state.Gateway(p), e.peer.Endpoints)
		if err != nil {
			return err
		}
		if w.cause != "" && !e.report.Has(w.cause) {
			e.report.find(w.cause, Here, e.advise(w.cause), "%s", w.text)
		}
		if w.outer.IsValid() && slices.Contains(e.peer.Endpoints, w.outer) {
			e.report.Endpoint = w.outer
		}
		ways[i] = w
	}
	if !e.report.Endpoint.IsValid() {
		e.chooseEndpoint(ctx)
	}
	agent, reached, err := e.underlay(ctx)
	if err != nil {
		return err
	}
	if agent != nil {
		defer agent.conn.Close()
		if err := e.checkWayBack(ctx, agent); err != nil {
			return err
		}
		if err := e.checkMTU(ctx, agent.rtt); err != nil {
			return err
		}
	}
	return e.overlay(ctx, ways, agent, reached)
}

// findPeer looks up the peer in the snapshot.
func (e *explainer) findPeer() bool {
	var found []state.Node
	for _, n := range e.Snapshot.Sorted() {
		if n.Name == e.Peer || len(e.Peer) >= 4 && strings.HasPrefix(n.ID.String(), e.Peer) {
			found = append(found, n)
		}
	}
	switch {
	case len(found) > 1:
		var names []string
		for _, n := range found {
			names = append(names, e.Snapshot.Name(n.ID))
		}
		e.report.find(PeerAmbiguous, Here, "Ask by more digits of the ID", "%d nodes match %q: %s", len(found), e.Peer, strings.Join(names, ", "))
		return false
	case len(found) == 0:
		for _, s := range e.Snapshot.Skipped {
			if id, ok := strings.CutPrefix(s.Key, "node/"); ok && (len(e.Peer) >= 4 && strings.HasPrefix(id, e.Peer)) {
				e.report.find(ClaimDisagrees, Here, "Restart the agent of that node; `forget` it if the node is no more", "the node's value in the store is ignored: %v", s)
				return false
			}
			e.report.fact("ignored in the store: %v", s)
		}
		e.report.find(PeerUnknown, Here, "Look at `fleet ls` for the names, and whether the agent of that node runs with the same store and fleet", "none of %d nodes in the store is %q", len(e.Snapshot.Nodes), e.Peer)
		return false
	}
	if found[0].ID == e.Self {
		e.report.Peer = e.Snapshot.Name(e.Self)
		e.report.fact("this is the node itself")
		return false
	}
	e.peer = found[0]
	e.report.Peer = e.Snapshot.Name(e.peer.ID)
	for _, p := range e.peer.Prefixes {
		if holder, ok := e.Snapshot.Claims[p]; !ok || holder != e.peer.ID {
			text := "nobody"
			if ok {
				text = e.Snapshot.Name(holder)
			}
			e.report.find(ClaimDisagrees, Between, "Restart the agent of the node that has the prefix without a claim", "the peer says it has %v, which %s has claimed", p, text)
		}
	}
	return true
}

// chooseEndpoint takes the first endpoint that this host has a route to, or else the first.
func (e *explainer) chooseEndpoint(ctx context.Context) {
	for _, a := range e.peer.Endpoints {
		if !e.report.Endpoint.IsValid() {
			e.report.Endpoint = a
		}
		if _, err := route.Lookup(ctx, e.NS, route.Query{Dst: a}); err == nil {
			e.report.Endpoint = a
			return
		}
	}
}

// underlay asks the agent at the endpoint who it is. agent is nil if it does not answer or is another node's. reached says whether
// anything answers there.
func (e *explainer) underlay(ctx context.Context) (agent *asker, reached bool, err error) {
	at := e.report.Endpoint
	if !at.IsValid() {
		return nil, false, nil
	}
	m, err := route.Lookup(ctx, e.NS, route.Query{Dst: at})
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	if err != nil {
		e.report.find(NoUnderlayRoute, Here, "Set this host's links and routes right", "this host has no way to %v: %v", at, err)
		return nil, false, nil
	}
	echoed := make(chan error, 1)
	go func() { echoed <- Echo(ctx, e.NS, netip.Addr{}, at) }()
	a, sent, answer, aerr := e.hello(ctx, netip.Addr{}, at, marker{})
	eerr := <-echoed
	if ctx.Err() != nil {
		if a != nil {
			a.conn.Close()
		}
		return nil, false, ctx.Err()
	}
	if eerr == nil {
		e.report.fact("%v answers ICMP echo requests", at)
	} else if !errors.Is(eerr, ErrNoAnswer) {
		e.report.fact("%v", eerr)
	}
	if aerr != nil {
		switch {
		case errors.Is(aerr, syscall.ECONNREFUSED):
			e.report.find(AgentSilent, There, "Start the agent there; the node's boxes are reached as long as its kernel is as the agent left it", "nothing listens on UDP port %d of %v", e.ask(), at)
		case eerr == nil:
			e.report.find(AgentSilent, There, fmt.Sprintf("Start the agent there, and let UDP port %d pass", e.ask()), "%v answers ICMP echo requests, and nothing on UDP port %d", at, e.ask())
		default:
			return nil, false, e.silent(ctx, m, aerr)
		}
		return nil, true, nil
	}
	if answer.id != e.peer.ID {
		a.conn.Close()
		e.report.find(WrongNode, There, "Look whether the machine got another address, and restart the peer's agent", "at %v answers %s", at, e.Snapshot.Name(answer.id))
		return nil, true, nil
	}
	e.checkHello(answer, sent, a.rtt)
	return a, true, nil
}

// hello asks the responder at an address who it is.
func (e *explainer) hello(ctx context.Context, from, to netip.Addr, nonce marker) (*asker, time.Time, message, error) {
	a, err := newAsker(ctx, e.NS, from, netip.AddrPortFrom(to, e.ask()))
	if err != nil {
		return nil, time.Time{}, message{}, err
	}
	answer, sent, err := a.ask(ctx, message{kind: kindHello, nonce: nonce})
	if err != nil {
		a.conn.Close()
		return nil, sent, message{}, err
	}
	return a, sent, answer, nil
}

// checkHello looks at what the peer's agent says of itself.
func (e *explainer) checkHello(m message, sent time.Time, rtt time.Duration) {
	e.report.fact("the agent at %v answers within %v", e.report.Endpoint, rtt.Round(10*time.Microsecond))
	if m.generation != e.peer.Generation {
		e.report.find(OldAgent, There, "Wait until that agent has written itself to the store; restart it if it does not", "the agent there has generation %d, and the store %d", m.generation, e.peer.Generation)
	}
	if m.clock.IsZero() {
		e.report.fact("the peer's clock is not set")
	} else if skew := m.clock.Sub(sent.Add(rtt / 2)); skew.Abs() > MaxSkew {
		e.report.find(ClockSkew, Between, "Set both clocks by NTP: certificates and leases depend on them", "the peer's clock is %v off from this host's", skew.Round(time.Second))
	} else {
		e.report.fact("the clocks are at most %v apart", (skew.Abs() + rtt/2).Round(time.Millisecond))
	}
}

// checkWayBack asks the peer for its ways to this node's overlay addresses.
func (e *explainer) checkWayBack(ctx context.Context, agent *asker) error {
	for _, p := range e.self.Prefixes {
		m, _, err := agent.ask(ctx, message{kind: kindWay, overlay: state.Gateway(p)})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil || m.status != statusOK {
			e.report.fact("the peer does not say which way leads back")
			return nil
		}
		if m.way != "" {
			e.wayBack = m.way
			e.report.find(m.way, There, e.advise(m.way), "on the peer, the way back to %v is not right (%s)", state.Gateway(p), m.way)
			return nil
		}
	}
	return nil
}

// silent says why nothing answers at the endpoint.
func (e *explainer) silent(ctx context.Context, m route.Match, cause error) error {
	hop, what := m.Via, "the gateway to the peer"
	if !hop.IsValid() {
		hop, what = e.report.Endpoint, "the peer"
	}
	l, err := link.ByIndex(ctx, e.NS, m.Dev)
	if err != nil {
		return err
	}
	neighbours, err := link.ListNeighbours(ctx, e.NS, link.NeighbourFilter{Link: l.Ref(), Family: familyOf(hop)})
	if err != nil {
		return err
	}
	carrier := ""
	if !l.Running {
		carrier = ", which has no carrier"
	}
	for _, n := range neighbours {
		if n.Addr == hop && len(n.MAC) > 0 && n.State&(link.NeighbourFailed|link.NeighbourIncomplete) == 0 {
			e.report.find(MachineSilent, Between, "Look whether the machine runs, and what firewall is there or in between",
				"%v answers neither ICMP echo requests nor UDP port %d (%v); %s %v on link %s is there", e.report.Endpoint, e.ask(), cause, what, hop, l.Name)
			return nil
		}
	}
	question := "ARP"
	if familyOf(hop) == netns.IPv6 {
		question = "neighbour discovery"
	}
	e.report.find(NeighbourSilent, Between, "Look whether the machine runs and has that address, and whether both are on the same network",
		"nobody answers %s for %v, %s, on link %s%s", question, hop, what, l.Name, carrier)
	return nil
}

// advise is what to do about a way that is not right.
func (e *explainer) advise(c Cause) string {
	switch c {
	case LinkMissing, LinkDown:
		return fmt.Sprintf("Restart the agent there, which makes link %s and sets it up", e.Tunnel)
	case RouteForeign:
		return "Remove the other program's route, or give the fleet pools that nobody else uses"
	case PeerTakenForDead:
		return "Start the node's agent, or let it reach the store: the route comes back with it"
	default:
		return "Look whether the agent runs and reaches the store; it restores its routes when it does"
	}
}
