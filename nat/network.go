package nat

import (
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Network is a network of boxes behind one interface of the host, commonly a bridge. With the zero
// value of every option, its boxes reach each other, the host and, by their own addresses, the
// outside. From outside and from other networks, only published ports are reached.
//
// # Sources
//
// A packet from a network's link needs a source of that network: an address of Subnets or Behind,
// no address yet (0.0.0.0 or ::), or an IPv6 link-local address. A packet from elsewhere must not
// have such a source. So no one can forge a packet that conntrack takes for the reply of a
// connection that the table would not let begin. Packets that break the rule do not reach the host,
// are not translated, and neither leave their network nor enter one. A network without a subnet of
// a family has only link-local sources of it. A box on two networks must reply by the network that
// the request came from.
//
// The host ignores router advertisements and redirects from a network's link. It sends no TCP reset
// for a segment without a connection, because the segment may belong to a translated one.
//
// # Source ports
//
// Translation keeps the source port where it can (but see Random). Replies to a translated flow are
// translated back without a look at the published ports. So no box may send from a port that is
// published for another box: it would receive what visitors send to that port. A flow from such a
// port gets a port between 61000 and 65535. So does a flow of the host's own programs. If that is a
// single published port, the first packet is dropped, and the next one gets another port. It may be
// one of a published range, because a range may be all ports that there are.
//
// A box keeps the port for UDP and SCTP that it sends from its own published port, if that is a
// wildcard port with the same number in the box.
//
// A box of another host sees one address for its visitors and for this host itself (VisitorSNAT). So a
// visitor from a port below 1024, or from a published one, even its own, gets a port between 61000 and
// 65535, too. Other ports are kept, as those of masqueraded boxes are. A service of this host at a port
// from 1024 on that is not published can lose packets to a visitor from that port number: those that the
// box sends it from the port that the visitor uses.
//
// # Forwarding
//
// AddNetwork makes the host forward, link by link. It sets the namespace's global switch only where
// the kernel needs it. Links that did not forward before are recorded in the sets flipped4 and
// flipped6, in the transaction of the network. The setting is written after that, so the record
// survives a crash. Traffic from other hosts that arrives on these links is not forwarded: the host
// becomes no router for its neighbours. Packets that another program of the host translates, to its
// own published ports, are forwarded.
//
// DeleteNetwork of the last network and Delete restore the links, unless net.ipv4.ip_forward was
// set to 1 meanwhile. If another table of this library has networks, the links go on forwarding for
// these: the records move to that table, which restores the links in its turn. While both have
// networks, the record of a network's own link is in its table, and those of the uplinks are in the
// table that came first. That table drops what comes in by them for a [Pinhole] or from a prefix in
// Trusted of the other one, so networks with these share a table.
//
// Links that forward already are not recorded. So a host that routes for others sets
// net.ipv4.ip_forward before the first network is added. If another program sets it later, as
// dockerd does, Maintain deletes the records at once, and the next AddNetwork, SetNetwork, Sync or
// AcceptForward does. From then on the host routes for its neighbours. With IPv6 that is so if
// net.ipv6.conf.all.forwarding is not this package's doing. A link whose forwarding was off while
// net.ipv4.ip_forward was 1 was set apart by somebody: its neighbours stay where they are, and it
// is restored.
//
// A link that appears after AddNetwork, be it the network's interface or a new uplink, does not
// forward at once. The default for new links (net.ipv4.conf.default.forwarding) does not change,
// because it would hold for links of other programs, too. The next SetNetwork or Sync makes it
// forward. Maintain does it by itself.
//
// IPv4 settings are written over netlink. IPv6 settings are written to /proc/sys, and only for a
// network with an IPv6 subnet: force_forwarding of the links on Linux 6.17 and newer,
// conf.all.forwarding on older kernels. A host with conf.all.forwarding would lose the default
// route of router advertisements, so accept_ra is raised from 1 to 2 first.
//
// # Trusted prefixes
//
// A source in Trusted is only as good as the network between the hosts: nothing here proves it. But
// no box can forge one. What comes in by the link of a network is not trusted, whatever its source is:
// between the networks of a host, AllowTo decides. Neighbours, and containers of other programs on the
// host, can forge one unless rp_filter of their link is strict.
//
// The longest prefix says whose an address is. A trusted prefix around a subnet, such as the pool
// that all hosts have their prefixes from, trusts the rest of it. A trusted prefix inside a subnet
// takes its addresses out of the network: they are elsewhere, no box may send from them, and they have
// neither pinholes nor policies here. The subnets of the host's other networks stay theirs.
//
// The caller adds the routes to trusted prefixes. Where one is inside a subnet, boxes look for its
// addresses on their own link, so they need a route as well, or the host answers for them (proxy_arp).
//
// A published port may lead to a box of another host. VisitorSNAT says how the box's answers come back.
//
// A trusted prefix is an element of a set that is looked up for the first packet of a connection.
// So ten thousand cost the other packets nothing, and no rule. Those inside a subnet divide it in the
// sets that each packet's source is looked up in: they should be hundreds at most. Ten thousand are added
// in a fraction of a second, but the kernel takes seconds to delete them all at once. Before Linux 6.17,
// the subnet is not in the sets as long as the kernel carries out a change of such a prefix: boxes lose
// packets, and a neighbour's packet with a box's source begins a flow. So change these apart from many.
//
// # Bridges
//
// Bridged traffic is not affected, even if br_netfilter passes it to the firewall (the set
// bridged). Only PortGroup and a [Guard] keep frames from being bridged. Bridge ports are the caller's to set up. A box reaches its own published port and those
// of other boxes by the host's address. Where net.bridge.bridge-nf-call-iptables is 1, it needs
// hairpin mode on its bridge port to reach its own. The connections of boxes to published ports of
// their own network, and those from the host's 127.0.0.1, get the bridge's address as their source,
// because otherwise replies would bypass the host. An Isolated network needs a [Guard] or the flag
// "isolated" on its bridge ports; the field says when.
type Network struct {
	// Interface is the name of the host's interface. It need not exist yet.
	Interface string

	// Subnets are the addresses of the boxes: at least one prefix, of either family. They must not
	// overlap each other or those of other networks. Host bits are ignored: 10.88.0.1/16 means
	// 10.88.0.0/16.
	Subnets []netip.Prefix

	// Behind are prefixes that are reached through a box, such as a router or a VPN gateway. Boxes
	// may send with a source in Subnets or Behind only. Other packets from the network's link are
	// dropped, unless they leave by the same link. The caller adds the routes to the prefixes.
	//
	// A prefix that overlaps the subnets of another network lets every box of this one use those
	// sources. 0.0.0.0/0 and ::/0 switch the check off for the network. A network whose link leads
	// to the outside as well, by an uplink that is a port of its bridge, needs them.
	Behind []netip.Prefix

	// Masquerade replaces the source of what boxes send to the outside by the address of the
	// outgoing link. The source port stays, as with Docker and netavark, unless another flow to the
	// same destination has it or it is published for another box. Without Masquerade and SNAT boxes
	// send with their own addresses, and the outside needs a route to them.
	//
	// If that link goes down or loses the address, the kernel forgets the connections, and they break
	// even if the address comes back at once (nf_nat_masquerade.c). With SNAT they go on.
	Masquerade bool

	// SNAT replaces the source of what boxes send to the outside by the address of its family,
	// whatever the outgoing link is. It has at most one address of each family that has a subnet.
	// With both options set, Masquerade is for the family without an address here.
	SNAT []netip.Addr

	// Random gives each connection that Masquerade or SNAT translates a random source port. Then it
	// is harder to forge a reply to a guessed port, and a box cannot see from its ports which
	// others are in use. It breaks programs that need one port for all peers, such as NAT traversal
	// (STUN, games, WireGuard). UDP and SCTP from a box's own published port keep the port; see the
	// section on source ports.
	Random bool

	// Internal closes the way out: boxes open no connection to the outside or to other networks and
	// their published ports, except to networks in AllowTo. Boxes can still reach the host, and
	// published ports still work. Boxes of every network, whatever its options, reach the services
	// of the host. To keep them away, bind a service to another address or close it in the host's
	// input chain.
	Internal bool

	// Isolated separates the boxes of the network from each other: they reach only each other's
	// published ports.
	//
	// Packets between two ports of one bridge do not pass the firewall unless
	// net.bridge.bridge-nf-call-iptables is 1, with the module br_netfilter. Without it, the caller
	// must set the flag "isolated" on each bridge port. With it, the firewall sees and drops IP,
	// but not frames with a VLAN tag or of other protocols, and a receiver takes a frame of VLAN 0
	// for an untagged one. The flag stops those frames, but then also the way to each other's
	// published ports. A port with a [Guard] needs no flag, and keeps that way. [NAT.ListNetworks]
	// names the ports with neither.
	//
	// Without guards, boxes of one network can still pass for each other, because the host does not
	// know which box has which address. A box may send with another's address, and claim it by ARP
	// or neighbour discovery, unless a [Guard], the bridge or a switch binds addresses to ports.
	Isolated bool

	// AllowTo are the interfaces of other networks to whose boxes the boxes of this one may open
	// connections, to any port. The other direction stays closed. The other network may be added
	// later. If it is deleted, its entry here goes with it.
	AllowTo []string

	// Pinholes are ports that any host reaches at the boxes' own addresses, without translation.
	// They are for routed networks, whose addresses the outside has a route to. [NAT.AddPinholes]
	// adds more.
	Pinholes []Pinhole

	// Trusted are addresses outside of this host that reach every port of the boxes without
	// translation, and that boxes reach with their own addresses, whatever Masquerade and SNAT say:
	// boxes of other hosts that share a larger network, the other end of a VPN, the prefixes that
	// Kubernetes does not masquerade to. They do not overlap each other. The section on trusted
	// prefixes says more.
	Trusted []netip.Prefix

	// VisitorSNAT is for published ports whose box is in Trusted, on another host. It replaces the
	// source of what visitors send there by the address of its family. That is an address of this
	// host which the other host has in its Trusted and a route to, so the box answers by way of this
	// host. The section on source ports says which port a visitor has. Boxes of this network keep their
	// addresses, as ever towards Trusted.
	//
	// The box does not see who visits, nor do its policies. One port of one box has at most 64,512
	// visitors' flows at a time, of each protocol: one for each source port. Of visitors whose source
	// port is moved it has 4,536, from 61000 to 65535. The next one's packets are dropped.
	//
	// Without it, visitors keep their addresses: the other host has to let them in, and the box
	// answers by that host's way out. The host itself reaches such a port by its other addresses, and
	// not by 127.0.0.1.
	//
	// What other programs translate to addresses in Trusted is treated alike. If Trusted is so broad
	// that it holds Docker's subnets on this host, visitors of Docker's published ports have the address
	// of VisitorSNAT, too: give the prefixes of the other hosts, and no more.
	//
	// It has at most one address of each family that Trusted has a prefix of. The trusted prefixes
	// of networks with VisitorSNAT must not overlap each other.
	VisitorSNAT []netip.Addr

	// Strict closes the way out of boxes without a [Policy]: from the network's interface, nothing
	// but what policies allow reaches the host, other networks and the outside, by any address.
	// Add the network with Strict before the first box, and a box has no moment without a policy.
	Strict bool

	// PortGroup is the link group (Spec.Group in package link) that the caller puts the boxes' bridge ports
	// into, a number that no other links of the host have; 0 is none. Reports of IPv6 multicast listeners
	// (MLD) are not bridged from a port of the group to another one. A box that comes up reports the groups
	// of its addresses twice, and a bridge without multicast snooping floods that to all other boxes: with a
	// thousand of them, that takes longer than to attach the box. Networks may share a group.
	//
	// Neighbour discovery and multicast itself pass as before, and reports reach the host and ports in other
	// groups. What is lost: a multicast router or querier in a box does not hear who listens. Its port, and
	// that of an uplink, stay out of the group.
	//
	// A table of the family bridge does it, with the name of the NAT's and "/quiet" behind. Where the kernel
	// lacks the family, or another program has a table of that name, reports are flooded.
	PortGroup uint32

	// Flowtable has the kernel forward the established TCP and UDP flows of the boxes by its flowtable: those
	// to the outside, through published ports and to other networks. From the second or third one on, their
	// packets pass neither the rules nor the routing, which is faster. Flows end as without the option, with
	// the network, the port or the policy that let them begin: what ends a flow deletes its entry of
	// connection tracking, and the flowtable passes nothing without it.
	//
	// It needs Linux 6.4 to 6.18, or 7.2 and later, with the modules nf_flow_table_inet and nft_flow_offload.
	// Older kernels do not end such flows, and those between lose packets to bridges. Elsewhere the network is
	// errors.ErrUnsupported.
	//
	// What it costs:
	//   - Rules, counters and accounting of other programs do not see the packets of a flow that is in the
	//     flowtable, in any hook but the first ones of the ingress. A rule that another program adds is for new
	//     flows only.
	//   - Connection tracking does not check the sequence numbers of such a TCP connection any more. Before Linux
	//     7.2, it keeps one that was reset for minutes, as one that is open.
	//   - [NAT.ListFlows] has no State and no Timeout for the flow. It counts packets as before.
	//   - Each change of a network or a guard takes all flows out of the flowtable. Each is back with its next
	//     packet, if the rules still accept it.
	//   - From Linux 7.2 on, the flow also passes by the bridge and its rules, and keeps the port and the MAC
	//     address that its box had. If those change, its packets are lost. A port that leaves its bridge, or moves
	//     to another one, keeps its flows until [NAT.Maintain] sees that, or the next change of a network or a
	//     guard. A guard does not see the packets: the box may send them from another MAC address.
	//   - Flows of IPv6 keep the MTU that they began with. Where that of a link gets smaller, [NAT.Maintain] takes
	//     them out.
	//
	// Not in the flowtable are flows between boxes of one network, those of the host itself, of IPsec, with IP
	// options, and with a helper of connection tracking. Otherwise the kernel notices changes of routes and
	// neighbours. The guards of ports and of sources have checked the first packets, and the flowtable takes
	// only packets of the same link, addresses and ports.
	//
	// The flowtable takes packets from the links of the networks with the option, from other links with an
	// address that is not link-local, and from Linux 7.2 on from the ports of the networks' bridges: from 150 of
	// them at most, in this order. Before 7.2, a flow that has only one of its links there passes the rules in the
	// other direction. From 7.2 on it passes them in both, as do the flows of a network on a VLAN of a bridge.
	// Links that come later are taken in by the next change of a network or a guard, by [NAT.Sync] and by
	// [NAT.Maintain].
	//
	// A table of the family inet does it, with the name of the NAT's and "/flowtable" behind. Its chain is behind
	// all others of the hook forward. Where another program has a table of that name, the network is
	// os.ErrExist. See Documentation/networking/nf_flowtable.rst in the kernel's source.
	Flowtable bool

	// ClampMSS limits the MSS of TCP connections from and to the network to what the route's MTU
	// allows, for connections that pass the host. It is for paths that lose the ICMP messages of
	// path MTU discovery.
	ClampMSS bool

	// MSS limits the MSS of those connections to this number of bytes, at least 88. A smaller MSS
	// stays. It is for a path whose MTU no route of the host knows, e.g. a tunnel of the provider:
	// the MTU less 40 for IPv4, less 60 for IPv6. 0 sets no limit. It excludes ClampMSS.
	MSS uint16
}

// NetworkState is a network of the table, with what the kernel reports about it.
type NetworkState struct {
	Network

	// Drops counts the packets that the table dropped because of the network, since it was added.
	Drops Drops

	// LeakyPorts are the bridge ports of an Isolated network without the flag "isolated" or a guard. Over
	// these, boxes reach each other: with everything, or where br_netfilter passes packets to the
	// firewall, with frames that it does not pass.
	LeakyPorts []string
}

// Drops counts dropped packets by the reason.
type Drops struct {
	In       uint64 // to boxes from elsewhere, at ports that are neither published nor pinholes
	Out      uint64 // from boxes of an Internal network to elsewhere
	InterBox uint64 // from box to box of an Isolated network
	Source   uint64 // from boxes, with a source that is not the network's
	Invalid  uint64 // to the outside, without a connection that could be translated
}

// minMSS is the least that Linux takes (TCP_MIN_MSS in net/tcp.h).
const minMSS = 88

// checked checks the network and returns it with subnets without host bits.
func (n Network) checked() (Network, error) {
	if err := checkInterface(n.Interface); err != nil {
		return n, err
	}
	subnets, err := maskedSubnets(n.Subnets)
	if err != nil {
		return n, err
	}
	n.Subnets = subnets
	if n.Behind, err = maskedPrefixes("prefix behind a box", n.Behind); err != nil {
		return n, err
	}
	if n.Trusted, err = n.checkedTrusted(); err != nil {
		return n, err
	}
	if err := checkSNAT("SNAT", "subnet", n.SNAT, n.Subnets); err != nil {
		return n, err
	}
	if err := checkSNAT("VisitorSNAT", "trusted prefix", n.VisitorSNAT, n.Trusted); err != nil {
		return n, err
	}
	switch {
	case n.MSS != 0 && n.ClampMSS:
		return n, refuse.Input("the network has both ClampMSS and an MSS of %d", n.MSS)
	case n.MSS != 0 && n.MSS < minMSS:
		return n, refuse.Input("the MSS is %d, %d is the least", n.MSS, minMSS)
	case n.Random && !n.Masquerade && len(n.SNAT) == 0:
		return n, refuse.Input("the network has Random, and neither Masquerade nor SNAT, which it is for")
	}
	for i, name := range n.AllowTo {
		if err := checkInterface(name); err != nil {
			return n, err
		}
		if name == n.Interface {
			return n, refuse.Input("AllowTo names the network itself: %s", name)
		}
		if slices.Contains(n.AllowTo[:i], name) {
			return n, refuse.Input("AllowTo names %s twice", name)
		}
	}
	if o, err := checkPinholes(n.Pinholes); err != nil {
		return n, refuse.Input("the pinhole %v: %v", o, err)
	}
	for _, o := range n.Pinholes {
		if !n.contains(o.Box.Addr()) {
			return n, refuse.Input("the pinhole %v is outside the network's subnets", o)
		}
	}
	return n, nil
}

// checkNetworks checks networks that shall stand side by side, as checked does
// each, and returns the one at fault.
func checkNetworks(nets []Network) ([]Network, Network, error) {
	all := make([]Network, len(nets))
	for i, n := range nets {
		var err error
		if all[i], err = n.checked(); err != nil {
			return nil, n, err
		}
		for _, other := range all[:i] {
			if other.Interface == n.Interface {
				return nil, n, refuse.Input("two networks have the interface %s", n.Interface)
			}
			for _, s := range all[i].Subnets {
				for _, o := range other.Subnets {
					if o.Overlaps(s) {
						return nil, n, refuse.Input("the subnet %v overlaps %v of the network %s", s, o, other.Interface)
					}
				}
			}
			if len(other.VisitorSNAT) == 0 || len(n.VisitorSNAT) == 0 {
				continue
			}
			if a, b, found := overlapping(slices.Concat(other.far(), all[i].far())); found {
				return nil, n, refuse.Input("the trusted prefixes %v and %v overlap, and this network and %s have VisitorSNAT for them", a, b, other.Interface)
			}
		}
	}
	return all, Network{}, nil
}

// checkSNAT checks the addresses of a field: one of each family that there are prefixes of.
func checkSNAT(field, what string, snat []netip.Addr, prefixes []netip.Prefix) error {
	for i, a := range snat {
		switch {
		case !a.IsValid():
			return refuse.Input("%s address %d is missing", field, i)
		case a.Is4In6():
			return refuse.Input("the %s address %v is an IPv4 address in IPv6 form: use Unmap", field, a)
		case a.Zone() != "":
			return refuse.Input("the %s address %v has a zone", field, a)
		case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a.IsLinkLocalUnicast():
			return refuse.Input("the %s address %v is unspecified, multicast, loopback or link-local", field, a)
		case !hasFamily(prefixes, a.Is6()):
			return refuse.Input("the %s address %v is of a family that the network has no %s of", field, a, what)
		}
		for _, other := range snat[:i] {
			if other.Is6() == a.Is6() {
				return refuse.Input("the %s addresses %v and %v are of one family", field, other, a)
			}
		}
	}
	return nil
}

// has reports whether the network has a subnet of IPv6 or else of IPv4.
func (n Network) has(v6 bool) bool { return hasFamily(n.Subnets, v6) }

func hasFamily(prefixes []netip.Prefix, v6 bool) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 })
}

// maskedSubnets checks subnets and returns them without host bits.
func maskedSubnets(prefixes []netip.Prefix) ([]netip.Prefix, error) {
	if len(prefixes) == 0 {
		return nil, refuse.Input("the network has no subnet")
	}
	for _, s := range prefixes {
		if s.IsValid() && s.Bits() == 0 {
			return nil, refuse.Input("the subnet %v holds every address", s)
		}
	}
	return maskedPrefixes("subnet", prefixes)
}

// maskedPrefixes checks prefixes, which are called what in errors, and returns them
// without host bits.
func maskedPrefixes(what string, prefixes []netip.Prefix) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for i, s := range prefixes {
		switch a := s.Addr(); {
		case !s.IsValid():
			return nil, refuse.Input("%s %d is not a valid prefix", what, i)
		case a.Is4In6():
			return nil, refuse.Input("the %s %v is IPv4 in IPv6 form", what, s)
		case s.Bits() > 0 && (a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast()):
			return nil, refuse.Input("the %s %v is multicast, loopback or link-local", what, s)
		}
		all = append(all, s.Masked())
	}
	if a, b, found := overlapping(all); found {
		return nil, refuse.Input("the %s %v overlaps %v", what, b, a)
	}
	return all, nil
}

// checkInterface refuses what is no interface name, and the name of the loopback link.
func checkInterface(name string) error {
	if name == "lo" {
		return refuse.Input("lo is no interface that boxes are behind")
	}
	return linkname.Check(name)
}

// lastAddr is the last address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
