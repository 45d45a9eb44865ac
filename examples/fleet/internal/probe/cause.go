package probe

import (
	"fmt"
	"net/netip"
	"strings"
)

// Cause is what keeps a peer from being reached. The text is stable: programs may compare it.
type Cause string

// The causes. The comment says what was measured.
const (
	StoreAway        Cause = "store-away"          // given by the caller: the agent acts on what it knew last
	PeerUnknown      Cause = "peer-unknown"        // the store has no such node
	PeerAmbiguous    Cause = "peer-ambiguous"      // several nodes have the name, or an ID that begins like that
	ClaimDisagrees   Cause = "claim-disagrees"     // the node's value is skipped, or a claim names another node
	LinkMissing      Cause = "link-missing"        // there is no tunnel link
	LinkDown         Cause = "link-down"           // the tunnel link is down
	RouteMissing     Cause = "route-missing"       // no route leads to the peer's prefix
	RouteForeign     Cause = "route-foreign"       // the kernel chooses a route that another program made
	RouteOther       Cause = "route-other"         // the route leads to another endpoint than the peer's
	AddressMissing   Cause = "address-missing"     // this host does not have its own address in the overlay
	PeerTakenForDead Cause = "peer-taken-for-dead" // the route is unreachable: the peer was gone longer than hold
	NoUnderlayRoute  Cause = "no-underlay-route"   // this host has no route to the peer's endpoint
	NeighbourSilent  Cause = "neighbour-silent"    // nobody answers ARP or neighbour discovery: for the peer, or for the gateway to it
	MachineSilent    Cause = "machine-silent"      // neither an echo request nor the agent's port is answered at the endpoint
	WrongNode        Cause = "wrong-node"          // another node answers at the endpoint
	OldAgent         Cause = "old-agent"           // the agent there has another generation than the store
	AgentSilent      Cause = "agent-silent"        // the machine answers, its agent does not
	MTUTooBig        Cause = "mtu-too-big"         // small packets pass with DF, full-sized ones do not
	ClockSkew        Cause = "clock-skew"          // the clocks are more than MaxSkew apart
	FilteredHere     Cause = "filtered-here"       // this host drops tunnel packets, or what goes into the tunnel
	FilteredOnWay    Cause = "filtered-on-way"     // tunnel packets leave one host and do not arrive at the other
	FilteredAtPeer   Cause = "filtered-at-peer"    // tunnel packets arrive at the peer, and do not get through its firewall or tunnel
	OverlaySilent    Cause = "overlay-silent"      // a request arrives by the peer's tunnel, and its kernel sends no answer
	TunnelSilent     Cause = "tunnel-silent"       // tunnel packets leave, nothing comes back, and the peer's agent cannot be asked
	BadChecksum      Cause = "bad-checksum"        // packets arrive with a wrong UDP checksum
)

// Side says on which host the cause is.
type Side string

// The sides. Between is the network between the hosts, or all of them together.
const (
	Here    Side = "here"
	There   Side = "there"
	Between Side = "between"
)

// Finding is one reason why a peer is not reached.
type Finding struct {
	Cause    Cause
	Side     Side
	Measured string // one sentence: what was measured
	Advice   string // one sentence: what to do about it
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s. %s.", f.Cause, f.Measured, f.Advice) }

// Report is what Explain found out.
type Report struct {
	Peer     string     // name and short ID, or what was asked for if there is no such node
	Endpoint netip.Addr // the peer's address on the underlay that was probed
	Findings []Finding  // in the order of the way there and back; empty if nothing is wrong
	Facts    []string   // what works, and what could not be measured; a phrase each
}

// Has reports whether a cause is among the findings.
func (r Report) Has(c Cause) bool {
	for _, f := range r.Findings {
		if f.Cause == c {
			return true
		}
	}
	return false
}

func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", r.Peer)
	if r.Endpoint.IsValid() {
		fmt.Fprintf(&b, " at %v", r.Endpoint)
	}
	b.WriteByte('\n')
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	for _, fact := range r.Facts {
		fmt.Fprintf(&b, "  %s\n", fact)
	}
	if len(r.Findings) == 0 {
		b.WriteString("  nothing is wrong\n")
	}
	return b.String()
}

func (r *Report) find(c Cause, side Side, advice, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{Cause: c, Side: side, Measured: fmt.Sprintf(format, args...), Advice: advice})
}

func (r *Report) fact(format string, args ...any) {
	r.Facts = append(r.Facts, fmt.Sprintf(format, args...))
}
