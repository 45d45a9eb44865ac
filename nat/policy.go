package nat

import (
	"net/netip"
	"slices"
)

// Policy says what a box may reach, and who may reach it. A direction with Rules is closed but for
// what they allow; a nil direction is not limited. Policies only take away: what they allow still
// has to be allowed by the box's [Network], and ports of the box still have to be published or
// opened by a [Pinhole] for the outside.
//
// # What is judged
//
// Policies judge new connections, by the addresses that the box and its peer have without
// translation: a box that uses a published port of another box needs a rule for that box's own
// address and port. Replies always pass. [NAT.SetPolicies] ends the connections that the new policy
// does not allow and the old one did.
//
// Connections between two boxes of one network are judged where the host routes them. Frames
// between two ports of a bridge do not reach this firewall; see [NAT.SetGuards].
//
// The host itself reaches its boxes whatever Ingress says. The services of the host are closed to
// a box with Egress, on all addresses of the host, but for rules with Host. DHCP and the parts of
// ICMPv6 that an interface needs (neighbour discovery, multicast listeners) stay open. On the
// interface of a network with policies, all that else comes from an IPv6 link-local address is
// denied, because that address does not say which box has sent it.
//
// A policy is about addresses. An address of the box that no policy names is not limited, unless
// the network is Strict.
//
// # Cost
//
// All rules are elements of hash tables. A new connection costs a fixed number of lookups, whatever
// the number of boxes and rules; a packet of an established connection costs nothing. A range of
// ports takes an element for each 64 ports, and up to 126 at its ends; a prefix whose length is not
// a multiple of 4 (IPv4) or 8 (IPv6) takes up to 8 (IPv4) or 128 elements.
type Policy struct {
	// Box are the addresses of the box: at least one, at most 1024, all in subnets of one network. No
	// other policy may name them.
	Box []netip.Addr

	// Owner names whose policy this is. The kernel keeps it in the record of the policy. The limits
	// are those of [Port.Owner].
	Owner string

	// Egress is what the box may reach. Nil does not limit it.
	Egress *Rules

	// Ingress is who may reach the box. Nil does not limit it.
	Ingress *Rules

	// Refuse answers what is denied, with a TCP reset or an ICMP error (administratively
	// prohibited). Without it, denied packets are dropped, and the sender waits.
	Refuse bool
}

// Rules are the rules of one direction. A connection that one of them allows is allowed, so the
// policies of several authors add up in one list. Without a rule, nothing is allowed.
type Rules struct {
	Allow []Rule
}

// Rule allows connections. What a field leaves open, it allows: a Rule with a Peer alone allows all
// protocols and ports. The zero Rule is refused; 0.0.0.0/0 and ::/0 are the Peers that allow all.
type Rule struct {
	// Peer are the addresses on the other side. The zero Prefix is everybody: all addresses of the
	// families of the box. A prefix without host bits.
	Peer netip.Prefix

	// Except are parts of Peer that this rule does not allow. Another rule may allow them.
	Except []netip.Prefix

	// Proto is the protocol: TCP, UDP, SCTP, ICMP or the number of any other (IANA protocol
	// numbers). ICMP is ICMPv6 for the addresses of IPv6. 0 is every protocol.
	Proto Proto

	// Port is the port that the connection goes to, or the first port of a range. 0 is every port.
	// It needs one of the protocols TCP, UDP and SCTP.
	Port uint16

	// PortLast is the last port of a range. 0 or Port mean a single port.
	PortLast uint16

	// Host allows services of the host in place of a peer's: all that the box reaches without being
	// forwarded. Only rules of Egress may have it, without Peer.
	Host bool
}

// PolicyState is a policy of the table, with what it has denied.
type PolicyState struct {
	Policy

	// DeniedOut and DeniedIn count the packets from and to the box that its policy denied, for all
	// its addresses. Changes of the policy keep the counts.
	DeniedOut, DeniedIn uint64
}

// MaxRules is the maximum number of rules and exceptions in a policy, both directions together.
const MaxRules = 4096

// maxPolicyElements is the maximum number of elements that an address of a policy may take. It
// bounds the memory and the time of a change.
const maxPolicyElements = 1 << 16

// last is the last port.
func (r Rule) last() uint16 { return max(r.Port, r.PortLast) }

// protoOf returns the number of the rule's protocol for a family.
func (r Rule) protoOf(v6 bool) uint8 {
	const icmp6 = 58
	if r.Proto == ICMP && v6 {
		return icmp6
	}
	return uint8(r.Proto)
}

// of reports whether the rule has something to say about an address family.
func (r Rule) of(v6 bool) bool {
	return r.Host || !r.Peer.IsValid() || r.Peer.Addr().Is6() == v6
}

// peer returns the addresses on the other side, for a box's address of a family.
func (r Rule) peer(v6 bool) netip.Prefix {
	switch {
	case r.Peer.IsValid():
		return r.Peer
	case v6:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// A target is the far side of a connection, as a policy judges it.
type target struct {
	host  bool       // it is a service of the host
	peer  netip.Addr // the other side
	proto uint8
	port  uint16 // that the connection goes to
}

// allow reports whether one of the rules allows a connection. Nil rules allow all.
func (rs *Rules) allow(t target) bool {
	return rs == nil || slices.ContainsFunc(rs.Allow, t.allowedBy)
}

// allowedBy reports whether a rule allows the connection.
func (t target) allowedBy(r Rule) bool {
	switch {
	case r.Host != t.host, !r.of(t.peer.Is6()):
		return false
	case r.Proto != 0 && r.protoOf(t.peer.Is6()) != t.proto:
		return false
	case r.Port != 0 && (t.port < r.Port || r.last() < t.port):
		return false
	case r.Host:
		return true
	}
	inside := func(p netip.Prefix) bool { return p.Contains(t.peer) }
	return inside(r.peer(t.peer.Is6())) && !slices.ContainsFunc(r.Except, inside)
}
