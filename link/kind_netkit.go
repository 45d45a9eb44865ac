package link

// Netkit is a pair of links, as a [Veth] is, for BPF programs: they act on a packet
// before it enters the other namespace. Deleting either end deletes both.
//
// It needs Linux 6.7 with CONFIG_NETKIT. A comment on a field gives its default
// last, and IFLA_NETKIT_* of linux/if_link.h in parentheses. See ip-link(8).
type Netkit struct {
	Peer Spec // the other end, see Veth (PEER_INFO)

	Mode *NetkitMode // of both ends; NetkitL3 (MODE)

	// Policy and PeerPolicy say what happens to packets of this end and of the
	// other if no program is attached; NetkitForward. (POLICY, PEER_POLICY)
	Policy, PeerPolicy *NetkitPolicy

	// Scrub and PeerScrub say whether the kernel clears a packet's mark and
	// priority before the program of this end, or of the other, runs;
	// NetkitScrubDefault; Linux 6.13. (SCRUB, PEER_SCRUB)
	Scrub, PeerScrub *NetkitScrub

	// Headroom and Tailroom are the bytes kept free before and behind packets;
	// Linux 6.14. (HEADROOM, TAILROOM)
	Headroom, Tailroom uint16
}

// NetkitMode says what a netkit pair carries, NETKIT_L* in linux/if_link.h.
type NetkitMode uint32

// The values of NetkitMode.
const (
	NetkitL2 NetkitMode = 0 // Ethernet frames; ends have hardware addresses
	NetkitL3 NetkitMode = 1 // IP packets
)

// NetkitPolicy says what happens to packets where no program is attached,
// netkit_action in linux/if_link.h.
type NetkitPolicy uint32

// The values of NetkitPolicy.
const (
	NetkitForward   NetkitPolicy = 0 // they go to the other end (NETKIT_PASS)
	NetkitBlackhole NetkitPolicy = 2 // they are dropped (NETKIT_DROP)
)

// NetkitScrub says what the kernel clears in a packet, NETKIT_SCRUB_* in
// linux/if_link.h.
type NetkitScrub uint32

// The values of NetkitScrub.
const (
	NetkitScrubNone    NetkitScrub = 0 // nothing
	NetkitScrubDefault NetkitScrub = 1 // mark and priority, if the ends are in different namespaces
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
	return nil
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
		{1, "IFLA_NETKIT_PEER_INFO", &otherEnd{spec: &k.Peer}, netkitPeer},
	}
}
