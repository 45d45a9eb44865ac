package nat

import (
	"net/netip"
	"strings"

	"github.com/boxwire/boxwire/netns"
)

// Hints are what [NAT.Explain] cannot find out by itself. The zero value is fine.
type Hints struct {
	// Box is the box's namespace. Explain looks there for the program that listens.
	Box *netns.NS

	// From is the client address to diagnose. It selects the ingress link.
	From netip.Addr

	// ForeignOnly has Explain look for causes in the rules of other tables only: CauseForeignDrop and
	// CauseForeignDNAT. It needs Box of the port, which it believes to lead there. On a host without
	// such rules, Explain reads one list of chains and no more.
	ForeignOnly bool
}

// Cause is a reason why a published port does not answer, or a box gets no answer.
type Cause struct {
	Kind CauseKind

	// Subject is the thing at fault: "link eth0", "rule # handle 7 of chain ip filter FORWARD".
	Subject string

	// Text says what is wrong and how to repair it, in a sentence or two.
	Text string

	// Certain is false for a cause that holds for some visitors only, or depends on something
	// unknown.
	Certain bool
}

// String returns the text. It begins with "perhaps: " if the cause is not certain.
func (c Cause) String() string {
	if c.Certain {
		return c.Text
	}
	return "perhaps: " + c.Text
}

// Causes are what [NAT.Explain] and [NAT.ExplainOut] found, in the order in which a packet meets
// them.
type Causes []Cause

// String returns one line for each cause, or a line that says that there is none.
func (c Causes) String() string {
	if len(c) == 0 {
		return "nothing was found on this host that keeps the port from answering"
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
	CauseTableMissing    CauseKind = "table missing"      // the table does not exist
	CauseTableDamaged    CauseKind = "table damaged"      // its rules are not those that Open installs
	CauseNotPublished    CauseKind = "not published"      // no element for the port
	CauseLeadsElsewhere  CauseKind = "leads elsewhere"    // the port is published for another box
	CauseAddressNotLocal CauseKind = "address not local"  // the host has not the address of the port, or of VisitorSNAT
	CauseForeignDNAT     CauseKind = "foreign DNAT"       // another table translates the packet first
	CauseForeignDrop     CauseKind = "foreign drop"       // a rule or policy of another table drops the packet
	CauseSource          CauseKind = "source"             // this table drops the packet for its source address
	CauseLegacyRules     CauseKind = "legacy rules"       // there are rules of iptables-legacy, which cannot be read
	CauseInternal        CauseKind = "internal"           // the box's network is Internal
	CausePolicy          CauseKind = "policy"             // no rule of the box's policy allows it
	CauseReversePath     CauseKind = "reverse path"       // rp_filter drops packets from the link
	CauseStaleFlow       CauseKind = "stale flow"         // conntrack has older flows that go elsewhere
	CauseForwardingOff   CauseKind = "forwarding off"     // the host does not forward between the links
	CauseLocalnetOff     CauseKind = "route_localnet off" // packets from 127.0.0.0/8 do not leave by the link
	CauseNoRoute         CauseKind = "no route"           // the host has no link with the box's subnet
	CauseNoNetwork       CauseKind = "no network"         // the box's link is not a network of the table
	CauseOtherHost       CauseKind = "other host"         // the box is on another host, and answers by its own way
	CauseLinkDown        CauseKind = "link down"          // the box's link is down or without carrier
	CauseNeighbourFailed CauseKind = "neighbour failed"   // nothing answers for the box's address
	CauseBridgeFilter    CauseKind = "bridge filter"      // br_netfilter is on and bridge ports are isolated
	CauseNoListener      CauseKind = "no listener"        // no program listens in the box
)
