package link

// Netkit is a pair of links like a veth's, made for BPF programs: what they
// decide happens before a packet changes namespaces. Deleting either end deletes
// both.
//
// Needs Linux 6.7 with CONFIG_NETKIT. See ip-link(8), IFLA_NETKIT_* in
// linux/if_link.h (in parentheses).
type Netkit struct {
	Peer Spec // the other end, as that of a [Veth] (PEER_INFO)

	Mode *NetkitMode // NetkitL3; for both ends (MODE)

	// What becomes of packets where no program is attached: at this end and
	// at the other; NetkitForward. (POLICY, PEER_POLICY)
	Policy, PeerPolicy *NetkitPolicy

	// Whether mark and priority of packets are cleared before the program at
	// this end, and at the other, sees them; NetkitScrubDefault; Linux 6.13.
	// (SCRUB, PEER_SCRUB)
	Scrub, PeerScrub *NetkitScrub

	// Room kept free before and behind packets, in bytes; Linux 6.14.
	// (HEADROOM, TAILROOM)
	Headroom, Tailroom uint16
}

// NetkitMode says what a netkit pair carries, NETKIT_L* in linux/if_link.h.
type NetkitMode uint32

// The values of NetkitMode.
const (
	NetkitL2 NetkitMode = 0 // Ethernet frames; ends have hardware addresses
	NetkitL3 NetkitMode = 1 // IP packets
)

// NetkitPolicy says what becomes of packets without a program, netkit_action in
// linux/if_link.h.
type NetkitPolicy uint32

// The values of NetkitPolicy.
const (
	NetkitForward   NetkitPolicy = 0 // go to the other end (NETKIT_PASS)
	NetkitBlackhole NetkitPolicy = 2 // are dropped (NETKIT_DROP)
)

// NetkitScrub says what is cleared of packets, NETKIT_SCRUB_* in
// linux/if_link.h.
type NetkitScrub uint32

// The values of NetkitScrub.
const (
	NetkitScrubNone    NetkitScrub = 0 // nothing
	NetkitScrubDefault NetkitScrub = 1 // mark and priority, between namespaces
)

func (Netkit) name() string { return "netkit" }

func (k Netkit) check(outer *Spec) error {
	if k.Mode == nil || *k.Mode == NetkitL3 {
		for _, s := range []*Spec{outer, &k.Peer} {
			if err := noMAC("a netkit in mode L3", s); err != nil {
				return err
			}
		}
	}
	return checkPeer("netkit", &k.Peer, outer)
}

func (k Netkit) fields() (Kind, []field) {
	return &k, []field{
		{5, "IFLA_NETKIT_MODE", &k.Mode, u32},
		{3, "IFLA_NETKIT_POLICY", &k.Policy, u32},
		{6, "IFLA_NETKIT_SCRUB", &k.Scrub, u32},
		{4, "IFLA_NETKIT_PEER_POLICY", &k.PeerPolicy, u32},
		{7, "IFLA_NETKIT_PEER_SCRUB", &k.PeerScrub, u32},
		{8, "IFLA_NETKIT_HEADROOM", &k.Headroom, u16},
		{9, "IFLA_NETKIT_TAILROOM", &k.Tailroom, u16},
		{1, "IFLA_NETKIT_PEER_INFO", &k.Peer, netkitPeer},
	}
}
