package link

import (
	"encoding/binary"
	"net"
	"time"
)

// Bridge is an Ethernet bridge in the kernel. Other links become its ports by
// naming its index as their Spec.Master; it takes at most 1,023 of them.
//
// A bridge made without Spec.MAC carries the lowest hardware address of its
// ports, and changes it as ports come and go; give it one where neighbours
// keep it in their caches. Without Spec.MTU its MTU follows its ports, too.
// A bridge has a carrier only while at least one port has.
//
// Needs the kernel's module "bridge". Times are kept in hundredths of a second.
// See ip-link(8) for the options, and IFLA_BR_* in linux/if_link.h (in
// parentheses).
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
	MDBOffloadFail        *bool            // tells when hardware does not take a group; Linux 6.16 (MULTI_BOOLOPT)

	// Bridged packets pass through the firewall of the layer above; off.
	// Needs the module br_netfilter.
	CallIPTables  *bool // (NF_CALL_IPTABLES)
	CallIP6Tables *bool // (NF_CALL_IP6TABLES)
	CallARPTables *bool // (NF_CALL_ARPTABLES)
}

// BridgeSTPMode says who runs the spanning tree protocol, BR_STP_MODE_* in
// linux/if_link.h.
type BridgeSTPMode uint32

const (
	BridgeSTPAuto   BridgeSTPMode = 0 // a program, where one is installed, and else the kernel
	BridgeSTPUser   BridgeSTPMode = 1 // a program
	BridgeSTPKernel BridgeSTPMode = 2 // the kernel
)

func (Bridge) name() string { return "bridge" }

func (Bridge) check(*Spec) error { return nil }

func (k Bridge) options(o *options) Kind {
	intervalp(o, 1, "IFLA_BR_FORWARD_DELAY", 4, ticks, &k.ForwardDelay)
	interval(o, 2, "IFLA_BR_HELLO_TIME", 4, ticks, &k.HelloTime)
	interval(o, 3, "IFLA_BR_MAX_AGE", 4, ticks, &k.MaxAge)
	intervalp(o, 4, "IFLA_BR_AGEING_TIME", 4, ticks, &k.AgeingTime)
	numberp(o, 50, "IFLA_BR_STP_MODE", 4, &k.STPMode)
	onoff(o, 5, "IFLA_BR_STP_STATE", 4, &k.STP)
	numberp(o, 6, "IFLA_BR_PRIORITY", 2, &k.Priority)
	number(o, 9, "IFLA_BR_GROUP_FWD_MASK", 2, &k.GroupForwardMask)
	hardware(o, 20, "IFLA_BR_GROUP_ADDR", &k.GroupAddress)
	numberp(o, 49, "IFLA_BR_FDB_MAX_LEARNED", 4, &k.MaxLearned)

	// The protocol and the default go first: filtering makes them matter.
	number(o, 8, "IFLA_BR_VLAN_PROTOCOL", 2|bigEndian, &k.VLANProtocol)
	numberp(o, 39, "IFLA_BR_VLAN_DEFAULT_PVID", 2, &k.VLANDefaultPVID)
	onoff(o, 7, "IFLA_BR_VLAN_FILTERING", 1, &k.VLANFiltering)
	onoff(o, 41, "IFLA_BR_VLAN_STATS_ENABLED", 1, &k.VLANStats)
	onoff(o, 45, "IFLA_BR_VLAN_STATS_PER_PORT", 1, &k.VLANStatsPerPort)

	onoff(o, 23, "IFLA_BR_MCAST_SNOOPING", 1, &k.MulticastSnooping)
	numberp(o, 22, "IFLA_BR_MCAST_ROUTER", 1, &k.MulticastRouter)
	onoff(o, 24, "IFLA_BR_MCAST_QUERY_USE_IFADDR", 1, &k.QueryUseIfAddr)
	onoff(o, 25, "IFLA_BR_MCAST_QUERIER", 1, &k.MulticastQuerier)
	number(o, 27, "IFLA_BR_MCAST_HASH_MAX", 4, &k.MulticastHashMax)
	number(o, 28, "IFLA_BR_MCAST_LAST_MEMBER_CNT", 4, &k.LastMemberCount)
	number(o, 29, "IFLA_BR_MCAST_STARTUP_QUERY_CNT", 4, &k.StartupQueryCount)
	interval(o, 30, "IFLA_BR_MCAST_LAST_MEMBER_INTVL", 8, ticks, &k.LastMemberInterval)
	interval(o, 31, "IFLA_BR_MCAST_MEMBERSHIP_INTVL", 8, ticks, &k.MembershipInterval)
	interval(o, 32, "IFLA_BR_MCAST_QUERIER_INTVL", 8, ticks, &k.QuerierInterval)
	interval(o, 33, "IFLA_BR_MCAST_QUERY_INTVL", 8, ticks, &k.QueryInterval)
	interval(o, 34, "IFLA_BR_MCAST_QUERY_RESPONSE_INTVL", 8, ticks, &k.QueryResponseInterval)
	interval(o, 35, "IFLA_BR_MCAST_STARTUP_QUERY_INTVL", 8, ticks, &k.StartupQueryInterval)
	onoff(o, 42, "IFLA_BR_MCAST_STATS_ENABLED", 1, &k.MulticastStats)
	number(o, 43, "IFLA_BR_MCAST_IGMP_VERSION", 1, &k.IGMPVersion)
	number(o, 44, "IFLA_BR_MCAST_MLD_VERSION", 1, &k.MLDVersion)

	onoff(o, 36, "IFLA_BR_NF_CALL_IPTABLES", 1, &k.CallIPTables)
	onoff(o, 37, "IFLA_BR_NF_CALL_IP6TABLES", 1, &k.CallIP6Tables)
	onoff(o, 38, "IFLA_BR_NF_CALL_ARPTABLES", 1, &k.CallARPTables)
	k.boolOptions(o)
	return k
}

// boolOptions are the bits of struct br_boolopt_multi, Linux 5.0: values and a
// mask of those that are meant. The first is the opposite of its field. What a
// kernel does not know it reports as not meant.
func (k *Bridge) boolOptions(o *options) {
	bits := [...]struct {
		p       **bool
		inverse bool
	}{{&k.LinkLocalLearn, true}, {&k.MulticastVLANSnooping, false}, {&k.MST, false}, {&k.MDBOffloadFail, false}, {&k.LocalVLAN0, false}}
	var value, mask uint32
	for i, b := range bits {
		if p := *b.p; p != nil {
			mask |= 1 << i
			if *p != b.inverse {
				value |= 1 << i
			}
		}
	}
	o.custom(46, "IFLA_BR_MULTI_BOOLOPT", mask != 0,
		func() []byte { return pair(value, mask) },
		func(data []byte) {
			value, mask, ok := cutPair(data)
			for i, b := range bits {
				if ok && mask&(1<<i) != 0 {
					*b.p = new((value&(1<<i) != 0) != b.inverse)
				}
			}
		}, sameBits)
}

// pair is a struct of two numbers of 32 bits.
func pair(a, b uint32) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, a), b)
}

func cutPair(b []byte) (x, y uint32, ok bool) {
	if len(b) < 8 {
		return 0, 0, false
	}
	return binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:]), true
}

// sameBits compares two pairs of values and mask, where want's mask counts.
func sameBits(want, have []byte) bool {
	wv, wm, _ := cutPair(want)
	hv, hm, ok := cutPair(have)
	return ok && wm&hm == wm && wv&wm == hv&wm
}
