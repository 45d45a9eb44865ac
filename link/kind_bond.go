package link

import (
	"net"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Bond makes one link of several. A link becomes its port by Spec.Master or
// [Link.SetMaster], while it is down; Spec.BondPort has the port's own settings.
// The MAC of the bond, if none is given, is that of its first port.
//
// Some options belong to some modes only, and the mode can be changed only while
// the bond has no port; the kernel refuses the rest with a reason.
//
// It needs the kernel's module bonding. A comment on a field gives its default
// last, and IFLA_BOND_* of linux/if_link.h in parentheses. See ip-link(8) and
// Documentation/networking/bonding.rst in the kernel's source.
type Bond struct {
	Mode *BondMode // how ports are used; BondRoundRobin (MODE)

	// How the bond monitors its ports: by their carrier, or by ARP requests and
	// neighbour solicitations to other hosts. Times are multiples of 1 ms.
	MIIMonitor      *time.Duration   // how often the carrier is checked, 0: never; 0 (MIIMON)
	UpDelay         *time.Duration   // from a port's carrier to its use, a multiple of MIIMonitor; 0 (UPDELAY)
	DownDelay       *time.Duration   // from the carrier's loss to the end of its use; 0 (DOWNDELAY)
	PeerNotifyDelay *time.Duration   // between announcements after a failover; 0 (PEER_NOTIF_DELAY)
	ARPInterval     *time.Duration   // how often requests are sent, 0: never; 0 (ARP_INTERVAL)
	ARPTargets      []netip.Addr     // hosts that are asked, IPv4, up to 16 (ARP_IP_TARGET)
	NSTargets       []netip.Addr     // hosts that are asked, IPv6, up to 16; Linux 5.18 (NS_IP6_TARGET)
	ARPValidate     *BondARPValidate // which answers count; BondARPValidateNone (ARP_VALIDATE)
	ARPAllTargets   *bool            // all targets must answer, not any; off (ARP_ALL_TARGETS)
	MissedMax       uint8            // unanswered requests until a port counts as down; 2; Linux 5.17 (MISSED_MAX)

	// Active backup and similar modes: which port is used.
	ActivePort      Ref           // the port in use (ACTIVE_SLAVE)
	Primary         Ref           // the preferred port (PRIMARY)
	PrimaryReselect *BondReselect // when the primary port is used again; BondReselectAlways (PRIMARY_RESELECT)
	FailOverMAC     *BondMAC      // whose hardware address is used; BondMACSame (FAIL_OVER_MAC)
	ResendIGMP      *uint32       // IGMP reports after a failover, 0 to 255; 1 (RESEND_IGMP)
	PeerNotify      *uint8        // announcements after a failover; 1 (NUM_PEER_NOTIF)
	AllPortsActive  *bool         // accepts frames that come in at unused ports; off (ALL_SLAVES_ACTIVE)
	MinLinks        *uint32       // how many ports the bond's carrier needs; 0 (MIN_LINKS)
	LearnInterval   time.Duration // between learning packets, balance-tlb and balance-alb, whole seconds; 1 s (LP_INTERVAL)
	PacketsPerPort  *uint32       // before the next port's turn, balance-rr, 0: a random port; 1 (PACKETS_PER_SLAVE)
	HashPolicy      *BondHash     // which port a flow uses; BondHashL2 (XMIT_HASH_POLICY)
	DynamicBalance  *bool         // flows move with the load, balance-tlb; on (TLB_DYNAMIC_LB)

	// Link aggregation, mode 802.3ad.
	LACPFast        *bool            // the partner sends a LACPDU every second, not every 30; off (AD_LACP_RATE)
	LACPActive      *bool            // sends LACPDUs before the partner does; on; Linux 5.15 (AD_LACP_ACTIVE)
	LACPStrict      *bool            // no carrier without a partner; off; newer than Linux 7.0 (LACP_STRICT)
	ADSelect        *BondADSelect    // which aggregator is used; BondADStable (AD_SELECT)
	ADActorPriority uint16           // of the system, 1 to 65535; 65535 (AD_ACTOR_SYS_PRIO)
	ADActorSystem   net.HardwareAddr // address in LACPDUs; the bond's own (AD_ACTOR_SYSTEM)
	ADUserPortKey   *uint16          // upper bits of the port key, 0 to 1023; 0 (AD_USER_PORT_KEY)
	CoupledControl  *bool            // collecting and distributing begin together; on; Linux 6.9 (COUPLED_CONTROL)
	BroadcastNeigh  *bool            // sends ARP and neighbour discovery out of every port; off; Linux 6.17 (BROADCAST_NEIGH)
}

// BondMode says how a bond uses its ports, BOND_MODE_* in linux/if_bonding.h.
type BondMode uint8

// The values of BondMode.
const (
	BondRoundRobin   BondMode = 0 // balance-rr: packets go to the ports in turn
	BondActiveBackup BondMode = 1 // active-backup: one port is used, the others wait
	BondXOR          BondMode = 2 // balance-xor: a hash chooses the port, see HashPolicy
	BondBroadcast    BondMode = 3 // broadcast: every packet goes to every port
	Bond8023AD       BondMode = 4 // 802.3ad: link aggregation with a switch (LACP)
	BondTLB          BondMode = 5 // balance-tlb: outgoing flows by load
	BondALB          BondMode = 6 // balance-alb: also incoming flows by load, through ARP
)

// BondARPValidate says which packets show that a port works (bonding.rst,
// arp_validate).
type BondARPValidate uint32

// The values of BondARPValidate.
const (
	BondARPValidateNone         BondARPValidate = 0 // any traffic
	BondARPValidateActive       BondARPValidate = 1 // valid ARP at the active port, any traffic at the others
	BondARPValidateBackup       BondARPValidate = 2 // valid ARP at the backup ports, any traffic at the active one
	BondARPValidateAll          BondARPValidate = 3 // valid ARP at every port
	BondARPValidateFilter       BondARPValidate = 4 // any ARP
	BondARPValidateFilterActive BondARPValidate = 5 // any ARP, and it is validated at the active port
	BondARPValidateFilterBackup BondARPValidate = 6 // any ARP, and it is validated at the backup ports
)

// BondReselect says when the primary port is used again (bonding.rst,
// primary_reselect).
type BondReselect uint8

// The values of BondReselect.
const (
	BondReselectAlways  BondReselect = 0 // as soon as it is up
	BondReselectBetter  BondReselect = 1 // if it is faster than the port in use
	BondReselectFailure BondReselect = 2 // when the port in use fails
)

// BondMAC says which hardware addresses the bond and its ports have (bonding.rst,
// fail_over_mac).
type BondMAC uint8

// The values of BondMAC.
const (
	BondMACSame   BondMAC = 0 // all ports have the bond's address
	BondMACActive BondMAC = 1 // the bond has the address of the port in use
	BondMACFollow BondMAC = 2 // the port in use takes the bond's address
)

// BondHash says which fields of a packet choose the port (bonding.rst,
// xmit_hash_policy).
type BondHash uint8

// The values of BondHash.
const (
	BondHashL2         BondHash = 0 // hardware addresses
	BondHashL34        BondHash = 1 // IP addresses and ports
	BondHashL23        BondHash = 2 // hardware and IP addresses
	BondHashEncap23    BondHash = 3 // hardware and IP addresses of the inner packet
	BondHashEncap34    BondHash = 4 // IP addresses and ports of the inner packet
	BondHashVLANSrcMAC BondHash = 5 // VLAN and source hardware address
)

// BondADSelect says which aggregator a bond in mode 802.3ad uses (bonding.rst,
// ad_select).
type BondADSelect uint8

// The values of BondADSelect.
const (
	BondADStable    BondADSelect = 0 // the one in use, while it has a port
	BondADBandwidth BondADSelect = 1 // the one with the highest bandwidth
	BondADCount     BondADSelect = 2 // the one with the most ports
	BondADPriority  BondADSelect = 3 // the one with the highest priority; Linux 6.18
)

func (Bond) name() string { return "bond" }

func (k Bond) check(*Spec) error {
	if k.MIIMonitor != nil && *k.MIIMonitor != 0 && k.ARPInterval != nil && *k.ARPInterval != 0 {
		return refuse.Input("a bond watches its ports by MIIMonitor or by ARPInterval, not by both")
	}
	for _, l := range []struct {
		field string
		list  []netip.Addr
		v4    bool
	}{{"ARPTargets", k.ARPTargets, true}, {"NSTargets", k.NSTargets, false}} {
		if len(l.list) > 16 {
			return refuse.Input("%s has %d addresses; at most 16 are possible", l.field, len(l.list))
		}
		for _, a := range l.list {
			if !a.IsValid() || a.Is4() != l.v4 || a.Is4In6() || a.Zone() != "" {
				return refuse.Input("%s has %s, of the wrong family", l.field, a)
			}
		}
	}
	return nil
}

// The order is that in which the kernel sets them, too: the mode first.
func (k Bond) fields() (Kind, []field) {
	return &k, []field{
		{1, "IFLA_BOND_MODE", &k.Mode, u8},
		{2, "IFLA_BOND_ACTIVE_SLAVE", &k.ActivePort, refIndex{}},
		{3, "IFLA_BOND_MIIMON", &k.MIIMonitor, millis32},
		{4, "IFLA_BOND_UPDELAY", &k.UpDelay, millis32},
		{5, "IFLA_BOND_DOWNDELAY", &k.DownDelay, millis32},
		{28, "IFLA_BOND_PEER_NOTIF_DELAY", &k.PeerNotifyDelay, millis32},
		{7, "IFLA_BOND_ARP_INTERVAL", &k.ARPInterval, millis32},
		{8 | nested, "IFLA_BOND_ARP_IP_TARGET", &k.ARPTargets, addressList{}},
		{31 | nested, "IFLA_BOND_NS_IP6_TARGET", &k.NSTargets, addressList{}},
		{9, "IFLA_BOND_ARP_VALIDATE", &k.ARPValidate, u32},
		{10, "IFLA_BOND_ARP_ALL_TARGETS", &k.ARPAllTargets, u32},
		{30, "IFLA_BOND_MISSED_MAX", &k.MissedMax, u8},
		{11, "IFLA_BOND_PRIMARY", &k.Primary, refIndex{}},
		{12, "IFLA_BOND_PRIMARY_RESELECT", &k.PrimaryReselect, u8},
		{13, "IFLA_BOND_FAIL_OVER_MAC", &k.FailOverMAC, u8},
		{14, "IFLA_BOND_XMIT_HASH_POLICY", &k.HashPolicy, u8},
		{15, "IFLA_BOND_RESEND_IGMP", &k.ResendIGMP, u32},
		{16, "IFLA_BOND_NUM_PEER_NOTIF", &k.PeerNotify, u8},
		{17, "IFLA_BOND_ALL_SLAVES_ACTIVE", &k.AllPortsActive, u8},
		{18, "IFLA_BOND_MIN_LINKS", &k.MinLinks, u32},
		{19, "IFLA_BOND_LP_INTERVAL", &k.LearnInterval, seconds32},
		{20, "IFLA_BOND_PACKETS_PER_SLAVE", &k.PacketsPerPort, u32},
		{27, "IFLA_BOND_TLB_DYNAMIC_LB", &k.DynamicBalance, u8},
		{21, "IFLA_BOND_AD_LACP_RATE", &k.LACPFast, u8},
		{29, "IFLA_BOND_AD_LACP_ACTIVE", &k.LACPActive, u8},
		{34, "IFLA_BOND_LACP_STRICT", &k.LACPStrict, u8},
		{22, "IFLA_BOND_AD_SELECT", &k.ADSelect, u8},
		{25, "IFLA_BOND_AD_USER_PORT_KEY", &k.ADUserPortKey, u16},
		{24, "IFLA_BOND_AD_ACTOR_SYS_PRIO", &k.ADActorPriority, u16},
		{26, "IFLA_BOND_AD_ACTOR_SYSTEM", &k.ADActorSystem, hardware{}},
		{32, "IFLA_BOND_COUPLED_CONTROL", &k.CoupledControl, u8},
		{33, "IFLA_BOND_BROADCAST_NEIGH", &k.BroadcastNeigh, u8},
	}
}

// BondPort has the settings of a bond's port, for Spec.BondPort. [Link.Update]
// changes them. A nil field keeps the kernel's value. A comment on a field gives
// its default last, and IFLA_BOND_SLAVE_* of linux/if_link.h in parentheses.
type BondPort struct {
	Queue           *uint16 // transmit queue that tc(8) may choose the port by, 0: none; 0 (QUEUE_ID)
	Priority        *int32  // the port with the highest becomes active; 0; Linux 6.0 (PRIO)
	ADActorPriority *uint16 // priority of the port in mode 802.3ad; 255; Linux 6.18 (ACTOR_PORT_PRIO)
}

func (k *BondPort) fields() []field {
	return []field{
		{5, "IFLA_BOND_SLAVE_QUEUE_ID", &k.Queue, u16},
		{9, "IFLA_BOND_SLAVE_PRIO", &k.Priority, u32},
		{10, "IFLA_BOND_SLAVE_ACTOR_PORT_PRIO", &k.ADActorPriority, u16},
	}
}
