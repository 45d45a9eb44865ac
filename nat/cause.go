package nat

import (
	"net/netip"
	"strings"

	"github.com/boxwire/boxwire/netns"
)

// Hints tell [NAT.Explain] what it cannot find out by itself. The zero Hints are
// fine.
type Hints struct {
	// Box is the box's namespace, to look for the program that listens there.
	Box *netns.NS

	// From is the address of a visitor who does not get through: it tells which
	// link he comes in by.
	From netip.Addr
}

// Cause is a reason why a published port does not answer.
type Cause struct {
	Kind CauseKind

	// Subject is what it is about: "link eth0", "rule 7 of chain ip filter FORWARD".
	Subject string

	// Text says what is wrong, and what would mend it, in a sentence or two.
	Text string

	// Certain is false for what keeps out some visitors only, or depends on
	// something that is not known.
	Certain bool
}

// String returns the text, marked if it is not certain.
func (c Cause) String() string {
	if c.Certain {
		return c.Text
	}
	return "perhaps: " + c.Text
}

// Causes are what [NAT.Explain] found, in the order in which a packet meets them.
type Causes []Cause

// String returns a line for each cause.
func (c Causes) String() string {
	if len(c) == 0 {
		return "nothing on this host keeps the port from answering"
	}
	lines := make([]string, len(c))
	for i, cause := range c {
		lines[i] = cause.String()
	}
	return strings.Join(lines, "\n")
}

// CauseKind is the kind of a [Cause].
type CauseKind string

// The kinds of causes.
const (
	CauseTableMissing    CauseKind = "table missing"     // the table is not there
	CauseTableDamaged    CauseKind = "table damaged"     // its rules are not those of the skeleton
	CauseNotPublished    CauseKind = "not published"     // no element for the port
	CauseLeadsElsewhere  CauseKind = "leads elsewhere"   // published, but to another box
	CauseAddressNotLocal CauseKind = "address not local" // the host does not have the host address
	CauseForeignDNAT     CauseKind = "foreign DNAT"      // another table translates it first
	CauseForeignDrop     CauseKind = "foreign drop"      // a rule or policy of another table drops it
	CauseReversePath     CauseKind = "reverse path"      // rp_filter drops what comes in by the link
	CauseStaleFlow       CauseKind = "stale flow"        // conntrack has older flows that lead elsewhere
	CauseForwardingOff   CauseKind = "forwarding off"    // the host does not forward between the links
	CauseLocalnetOff     CauseKind = "route_localnet off"
	CauseNoRoute         CauseKind = "no route"         // the host has no link to the box's address
	CauseNoNetwork       CauseKind = "no network"       // the box's link was not added by AddNetwork
	CauseLinkDown        CauseKind = "link down"        // the box's link is down or without carrier
	CauseNeighbourFailed CauseKind = "neighbour failed" // nobody answers for the box's address
	CauseBridgeFilter    CauseKind = "bridge filter"    // br_netfilter and isolated bridge ports
	CauseNoListener      CauseKind = "no listener"      // nothing listens in the box
)
