package link

import (
	"net"
	"time"
)

// Bridge is an Ethernet bridge in the kernel. Other links become its ports by
// naming it as their Spec.Master; it takes at most 1,023 of them.
//
// A bridge keeps the hardware address that Create gives it. (One whose address
// was never set carries the lowest of its ports, and changes it as they come and
// go: the neighbours' entries for it go wrong each time.) Without Spec.MTU its
// MTU follows its ports. A bridge has a carrier only while at least one port has.
//
// Needs the kernel's module "bridge". Times are kept in hundredths of a second.
// See ip-link(8) for the options, and IFLA_BR_* in linux/if_link.h (in
// parentheses).
//
// # Many boxes on one bridge
//
// With the kernel's defaults each further box on a bridge costs more than the one before, above all with IPv6. What a box sends
// to multicast groups when it comes up (duplicate address detection, router solicitation, group reports) goes to every other
// box. For each port that comes up, a bridge with multicast snooping restarts two timers of every port. Where the addresses of
// boxes are assigned by a program, neither is needed:
//
//	br, err := link.Create(ctx, host, link.Spec{
//		Name: "boxwire0", Up: true, MAC: mac, Addrs: gateways,
//		Kind: link.Bridge{MulticastSnooping: new(false)},
//	})
//	eth, err := link.Create(ctx, host, link.Spec{
//		Name: "web0", Up: true, Master: br.Index,
//		Kind: link.Veth{Peer: link.Spec{
//			NS: web, Name: "eth0", Up: true, Addrs: addrs,
//			IPv6: link.IPv6Conf{AddrGenMode: new(link.AddrGenNone)},
//		}},
//	})
//
// The box then has no link-local IPv6 address, and its others are usable at once (see Spec.DAD). Neighbour discovery finds it as
// soon as its port forwards, for which [Link.WaitForwarding] waits. The other way is to let the bridge know the members of each
// group and send nothing else to boxes: MulticastQuerier, and Spec.Port with MulticastFlood off. It keeps multicast streams to
// their members, but the bridge then asks every box again for each port that comes up. For IPv6 it works only once the bridge
// has a link-local address and has asked for the first time.
//
// The rest of the cost is the kernel's: adding a port to a bridge walks over all others several times.
type Bridge struct {
	// Spanning tree.
	STP          *bool          // runs the spanning tree protocol; off (STP_STATE)
	STPMode      *BridgeSTPMode // who runs it; Linux 7.1 (STP_MODE)
	Priority     *uint16        // of this bridge; the default is 32768 (PRIORITY)
	ForwardDelay *time.Duration // 15 s; 2 s to 30 s while STP is on (FORWARD_DELAY)
	HelloTime    time.Duration  // 1 s to 10 s; 2 s (HELLO_TIME)
	MaxAge       time.Duration  // 6 s to 40 s; 20 s (MAX_AGE)

	// Forwarding and learning.
	AgeingTime       *time.Duration   // learned addresses are forgotten after it; 5 min, 0: nothing is learned (AGEING_TIME)
	GroupForwardMask uint16           // which of 01:80:c2:00:00:0x are forwarded, one bit each (GROUP_FWD_MASK)
	GroupAddress     net.HardwareAddr // where BPDUs go: 01:80:c2:00:00:00 (GROUP_ADDR)
	MaxLearned       *uint32          // how many addresses are learned at most, 0: any number; Linux 6.7 (FDB_MAX_LEARNED)
	LinkLocalLearn   *bool            // source addresses of link-local frames are learned; on (MULTI_BOOLOPT)

	// VLANs. The kernel may lack them (CONFIG_BRIDGE_VLAN_FILTERING).
	VLANFiltering    *bool        // ports pass their own VLANs only; off (VLAN_FILTERING)
	VLANProtocol     VLANProtocol // 802.1Q (VLAN_PROTOCOL)
	VLANDefaultPVID  *uint16      // VLAN of untagged frames at new ports; 1, 0: none (VLAN_DEFAULT_PVID)
	VLANStats        *bool        // counts by VLAN; off (VLAN_STATS_ENABLED)
	VLANStatsPerPort *bool        // counts by port and VLAN; off (VLAN_STATS_PER_PORT)
	LocalVLAN0       *bool        // own addresses are kept once, not once a VLAN; Linux 6.18 (MULTI_BOOLOPT)
	MST              *bool        // spanning trees by VLAN; Linux 5.18 (MULTI_BOOLOPT)

	// Multicast: where members are learned from IGMP and MLD, packets to a
	// group go only to its members' ports and to those of routers.
	MulticastSnooping     *bool            // learns members; on (MCAST_SNOOPING)
	MulticastVLANSnooping *bool            // does so by VLAN; Linux 5.15 (MULTI_BOOLOPT)
	MulticastQuerier      *bool            // sends queries, so that members answer; off. IPv6 queries need a link-local address on the bridge (MCAST_QUERIER)
	QueryUseIfAddr        *bool            // queries come from the bridge's address and not from 0.0.0.0; off (MCAST_QUERY_USE_IFADDR)
	MulticastRouter       *MulticastRouter // whether the bridge itself gets all of it (MCAST_ROUTER)
	MulticastHashMax      uint32           // groups at most, a power of two; 4096 (MCAST_HASH_MAX)
	MulticastStats        *bool            // counts by type of message; off (MCAST_STATS_ENABLED)
	IGMPVersion           uint8            // 2 or 3; 2 (MCAST_IGMP_VERSION)
	MLDVersion            uint8            // 1 or 2; 1 (MCAST_MLD_VERSION)
	LastMemberCount       uint32           // queries after a member left; 2 (MCAST_LAST_MEMBER_CNT)
	StartupQueryCount     uint32           // queries at the start; 2 (MCAST_STARTUP_QUERY_CNT)
	LastMemberInterval    time.Duration    // between those after a member left; 1 s (MCAST_LAST_MEMBER_INTVL)
	MembershipInterval    time.Duration    // a member that was not heard of for so long is forgotten; 260 s (MCAST_MEMBERSHIP_INTVL)
	QuerierInterval       time.Duration    // another querier that was not heard of for so long is gone; 255 s (MCAST_QUERIER_INTVL)
	QueryInterval         time.Duration    // between queries; 125 s (MCAST_QUERY_INTVL)
	QueryResponseInterval time.Duration    // members answer within; 10 s (MCAST_QUERY_RESPONSE_INTVL)
	StartupQueryInterval  time.Duration    // between queries at the start; 31.25 s (MCAST_STARTUP_QUERY_INTVL)
	MDBOffloadFail        *bool            // reports when hardware does not take a group; Linux 6.16 (MULTI_BOOLOPT)

	// Bridged packets pass through the firewall of the layer above; off.
	// Needs the module br_netfilter.
	CallIPTables  *bool // (NF_CALL_IPTABLES)
	CallIP6Tables *bool // (NF_CALL_IP6TABLES)
	CallARPTables *bool // (NF_CALL_ARPTABLES)
}

// BridgeSTPMode says who runs the spanning tree protocol, BR_STP_MODE_* in
// linux/if_link.h.
type BridgeSTPMode uint32

// The values of BridgeSTPMode.
const (
	BridgeSTPAuto   BridgeSTPMode = 0 // a program, where one is installed, and else the kernel
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
