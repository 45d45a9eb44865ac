package link

import (
	"net"
	"time"
)

// Bridge is an Ethernet bridge in the kernel. A link becomes its port by Spec.Master or [Link.SetMaster]. A bridge takes at
// most 1,023 ports.
//
// A bridge keeps the hardware address that Create sets. (Without one it has the lowest address of its ports and changes it as
// they come and go, which makes neighbours' entries for it stale.) Without Spec.MTU its MTU follows its ports. A bridge has a
// carrier while at least one port has.
//
// It needs the kernel's module bridge. Times are multiples of 10 ms. A comment on a field gives its default
// last, and IFLA_BR_* of linux/if_link.h in parentheses. See ip-link(8).
//
// # Many boxes on one bridge
//
// With the kernel's defaults each further box on a bridge costs more than the one before, above all with IPv6. The bridge
// floods what a box sends to multicast groups when it comes up (duplicate address detection, router solicitations, group
// reports) to every other box. With multicast snooping it restarts two timers of every port for each port that comes up. Where
// a program assigns the boxes' addresses, neither is needed:
//
//	br, err := link.Create(ctx, host, link.Spec{
//		Name: "boxwire0", Up: true, MAC: mac, Addrs: gateways,
//		Kind: link.Bridge{MulticastSnooping: new(false)},
//	})
//	eth, err := link.Create(ctx, host, link.Spec{
//		Name: "web0", Up: true, Master: br.Ref(),
//		Kind: link.Veth{Peer: link.Spec{
//			NS: web, Name: "eth0", Up: true, Addrs: addrs,
//			IPv6: link.IPv6Conf{AddrGenMode: new(link.AddrGenNone)},
//		}},
//	})
//
// The box then has no link-local IPv6 address, and its other addresses are usable at once (see Spec.DAD). Neighbour discovery
// finds the box as soon as its port forwards, for which [Link.WaitForwarding] waits.
//
// What is left is that each box reports its IPv6 groups twice (MLD), which the bridge floods to all other boxes. Boxes have no
// use for it: put their ports into a group (Spec.Group), and name it in PortGroup of their nat.Network.
//
// The other way is that the bridge knows the members of each group and sends multicast to no other box: MulticastQuerier, and
// Spec.Port with MulticastFlood off. Multicast streams then reach their members only. But the bridge queries every box again
// for each port that comes up, which costs more than the flood on a bridge of hundreds, and IPv6 needs a link-local address on
// the bridge and a first query. MulticastFlood off without a querier breaks neighbour discovery.
//
// The kernel adds the rest of the cost: adding a port to a bridge walks over all other ports several times.
type Bridge struct {
	// Spanning tree.
	STP          *bool          // runs the spanning tree protocol; off (STP_STATE)
	STPMode      *BridgeSTPMode // what runs it; BridgeSTPAuto; Linux 7.1 (STP_MODE)
	Priority     *uint16        // of this bridge, the lowest becomes root; 32768 (PRIORITY)
	ForwardDelay *time.Duration // in each of listening and learning, 2 s to 30 s while STP is on; 15 s (FORWARD_DELAY)
	HelloTime    time.Duration  // between hello packets, 1 s to 10 s; 2 s (HELLO_TIME)
	MaxAge       time.Duration  // of a hello packet, 6 s to 40 s; 20 s (MAX_AGE)

	// Forwarding and learning.
	AgeingTime       *time.Duration   // after it a learned address expires, 0: nothing is learned; 5 min (AGEING_TIME)
	GroupForwardMask uint16           // which of 01:80:c2:00:00:0x are forwarded, bit x each; 0 (GROUP_FWD_MASK)
	GroupAddress     net.HardwareAddr // where BPDUs go; 01:80:c2:00:00:00 (GROUP_ADDR)
	MaxLearned       *uint32          // how many addresses are learned at most, 0: no limit; 0; Linux 6.7 (FDB_MAX_LEARNED)
	LinkLocalLearn   *bool            // source addresses of link-local frames are learned; on (MULTI_BOOLOPT)

	// VLANs. The kernel may lack them (CONFIG_BRIDGE_VLAN_FILTERING).
	VLANFiltering    *bool        // a port passes its own VLANs only, see Link.AddVLANs; off (VLAN_FILTERING)
	VLANProtocol     VLANProtocol // of the tags that are filtered; VLAN8021Q (VLAN_PROTOCOL)
	VLANDefaultPVID  *uint16      // VLAN of untagged frames at new ports, 0: none; 1 (VLAN_DEFAULT_PVID)
	VLANStats        *bool        // counts by VLAN; off (VLAN_STATS_ENABLED)
	VLANStatsPerPort *bool        // counts by port and VLAN; off (VLAN_STATS_PER_PORT)
	LocalVLAN0       *bool        // own addresses are kept once, not once a VLAN; off; Linux 6.18 (MULTI_BOOLOPT)
	MST              *bool        // a spanning tree for each instance of VLANs; off; Linux 5.18 (MULTI_BOOLOPT)

	// Multicast. With snooping, the bridge learns members from IGMP and MLD, and
	// sends packets to a group to its members' and routers' ports only.
	MulticastSnooping     *bool            // learns members; on (MCAST_SNOOPING)
	MulticastVLANSnooping *bool            // learns them by VLAN; off; Linux 5.15 (MULTI_BOOLOPT)
	MulticastQuerier      *bool            // sends queries, which members answer; for IPv6 the bridge needs a link-local address; off (MCAST_QUERIER)
	QueryUseIfAddr        *bool            // IGMP queries come from the bridge's address and not from 0.0.0.0; off (MCAST_QUERY_USE_IFADDR)
	MulticastRouter       *MulticastRouter // whether the host itself gets every group; MulticastRouterAuto (MCAST_ROUTER)
	MulticastHashMax      uint32           // how many groups at most, a power of two; 4096 (MCAST_HASH_MAX)
	MulticastStats        *bool            // counts messages by type; off (MCAST_STATS_ENABLED)
	IGMPVersion           uint8            // 2 or 3; 2 (MCAST_IGMP_VERSION)
	MLDVersion            uint8            // 1 or 2; 1 (MCAST_MLD_VERSION)
	LastMemberCount       uint32           // queries after a member has left; 2 (MCAST_LAST_MEMBER_CNT)
	StartupQueryCount     uint32           // queries at the start; 2 (MCAST_STARTUP_QUERY_CNT)
	LastMemberInterval    time.Duration    // between queries after a member has left; 1 s (MCAST_LAST_MEMBER_INTVL)
	MembershipInterval    time.Duration    // a membership without a report expires after it; 260 s (MCAST_MEMBERSHIP_INTVL)
	QuerierInterval       time.Duration    // another querier without a query expires after it; 255 s (MCAST_QUERIER_INTVL)
	QueryInterval         time.Duration    // between queries; 125 s (MCAST_QUERY_INTVL)
	QueryResponseInterval time.Duration    // within it members answer; 10 s (MCAST_QUERY_RESPONSE_INTVL)
	StartupQueryInterval  time.Duration    // between queries at the start; 31.25 s (MCAST_STARTUP_QUERY_INTVL)
	MDBOffloadFail        *bool            // reports a group that hardware does not take; off; Linux 6.16 (MULTI_BOOLOPT)

	// Bridged packets pass iptables, ip6tables and arptables; off. They need the
	// module br_netfilter.
	CallIPTables  *bool // (NF_CALL_IPTABLES)
	CallIP6Tables *bool // (NF_CALL_IP6TABLES)
	CallARPTables *bool // (NF_CALL_ARPTABLES)
}

// BridgeSTPMode says what runs the spanning tree protocol, BR_STP_MODE_* in
// linux/if_link.h.
type BridgeSTPMode uint32

// The values of BridgeSTPMode.
const (
	BridgeSTPAuto   BridgeSTPMode = 0 // a program if one is installed (/sbin/bridge-stp), or the kernel
	BridgeSTPUser   BridgeSTPMode = 1 // a program
	BridgeSTPKernel BridgeSTPMode = 2 // the kernel
)

func (Bridge) name() string { return "bridge" }

func (Bridge) check(*Spec) error { return nil }

func (k Bridge) fields() (Kind, []field) {
	return &k, []field{
		{1, "IFLA_BR_FORWARD_DELAY", &k.ForwardDelay, ticks32},
		{2, "IFLA_BR_HELLO_TIME", &k.HelloTime, ticks32},
		{3, "IFLA_BR_MAX_AGE", &k.MaxAge, ticks32},
		{4, "IFLA_BR_AGEING_TIME", &k.AgeingTime, ticks32},
		{50, "IFLA_BR_STP_MODE", &k.STPMode, u32},
		{5, "IFLA_BR_STP_STATE", &k.STP, u32},
		{6, "IFLA_BR_PRIORITY", &k.Priority, u16},
		{9, "IFLA_BR_GROUP_FWD_MASK", &k.GroupForwardMask, u16},
		{20, "IFLA_BR_GROUP_ADDR", &k.GroupAddress, hardware{}},
		{49, "IFLA_BR_FDB_MAX_LEARNED", &k.MaxLearned, u32},

		// The protocol and the default go first: filtering makes them matter.
		{8, "IFLA_BR_VLAN_PROTOCOL", &k.VLANProtocol, be16},
		{39, "IFLA_BR_VLAN_DEFAULT_PVID", &k.VLANDefaultPVID, u16},
		{7, "IFLA_BR_VLAN_FILTERING", &k.VLANFiltering, u8},
		{41, "IFLA_BR_VLAN_STATS_ENABLED", &k.VLANStats, u8},
		{45, "IFLA_BR_VLAN_STATS_PER_PORT", &k.VLANStatsPerPort, u8},

		{23, "IFLA_BR_MCAST_SNOOPING", &k.MulticastSnooping, u8},
		{22, "IFLA_BR_MCAST_ROUTER", &k.MulticastRouter, u8},
		{24, "IFLA_BR_MCAST_QUERY_USE_IFADDR", &k.QueryUseIfAddr, u8},
		{25, "IFLA_BR_MCAST_QUERIER", &k.MulticastQuerier, u8},
		{27, "IFLA_BR_MCAST_HASH_MAX", &k.MulticastHashMax, u32},
		{28, "IFLA_BR_MCAST_LAST_MEMBER_CNT", &k.LastMemberCount, u32},
		{29, "IFLA_BR_MCAST_STARTUP_QUERY_CNT", &k.StartupQueryCount, u32},
		{30, "IFLA_BR_MCAST_LAST_MEMBER_INTVL", &k.LastMemberInterval, ticks64},
		{31, "IFLA_BR_MCAST_MEMBERSHIP_INTVL", &k.MembershipInterval, ticks64},
		{32, "IFLA_BR_MCAST_QUERIER_INTVL", &k.QuerierInterval, ticks64},
		{33, "IFLA_BR_MCAST_QUERY_INTVL", &k.QueryInterval, ticks64},
		{34, "IFLA_BR_MCAST_QUERY_RESPONSE_INTVL", &k.QueryResponseInterval, ticks64},
		{35, "IFLA_BR_MCAST_STARTUP_QUERY_INTVL", &k.StartupQueryInterval, ticks64},
		{42, "IFLA_BR_MCAST_STATS_ENABLED", &k.MulticastStats, u8},
		{43, "IFLA_BR_MCAST_IGMP_VERSION", &k.IGMPVersion, u8},
		{44, "IFLA_BR_MCAST_MLD_VERSION", &k.MLDVersion, u8},

		{36, "IFLA_BR_NF_CALL_IPTABLES", &k.CallIPTables, u8},
		{37, "IFLA_BR_NF_CALL_IP6TABLES", &k.CallIP6Tables, u8},
		{38, "IFLA_BR_NF_CALL_ARPTABLES", &k.CallARPTables, u8},
		// Bits of struct br_boolopt_multi, Linux 5.0; the first is no_linklocal_learn.
		{46, "IFLA_BR_MULTI_BOOLOPT", []**bool{&k.LinkLocalLearn, &k.MulticastVLANSnooping, &k.MST, &k.MDBOffloadFail, &k.LocalVLAN0}, &maskedBits{inverse: 1}},
	}
}
