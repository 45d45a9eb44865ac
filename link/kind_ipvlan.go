package link

import "github.com/boxwire/boxwire/internal/refuse"

// IPVLAN shares the hardware address of its Spec.Parent, which is required; the
// kernel chooses the link by the packet's IP address. With Spec.NS it puts a box on
// the parent's network where a switch allows one hardware address a port. The
// parent and its ipvlans do not reach each other.
//
// It needs the kernel's module ipvlan. See ip-link(8) and IFLA_IPVLAN_* in
// linux/if_link.h (in parentheses).
type IPVLAN struct {
	Mode *IPVLANMode // the same for all ipvlans of a parent; IPVLANL3 (MODE)

	// Private keeps the ipvlans of a parent from each other. VEPA sends what is
	// between them to the outside switch, which sends it back. At most one of
	// them may be set, and it holds for all ipvlans of the parent. (FLAGS)
	Private, VEPA bool
}

// IPVTAP is an [IPVLAN] whose packets a program reads and writes at /dev/tapN,
// where N is the link's index. It needs the kernel's module ipvtap.
type IPVTAP struct{ IPVLAN }

// IPVLANMode is the layer that an ipvlan works on, IPVLAN_MODE_* in
// linux/if_link.h.
type IPVLANMode uint16

// The values of IPVLANMode.
const (
	IPVLANL2  IPVLANMode = 0 // Ethernet: ARP and multicast work
	IPVLANL3  IPVLANMode = 1 // routed: ARP and multicast do not work
	IPVLANL3S IPVLANMode = 2 // routed, and seen by the parent's connection tracking
)

func (IPVLAN) name() string { return "ipvlan" }

func (k IPVLAN) check(outer *Spec) error {
	if k.Private && k.VEPA {
		return refuse.Input("an ipvlan is Private or VEPA, not both")
	}
	if outer.MAC != nil {
		return refuse.Input("an ipvlan has its parent's hardware address: MAC must be nil")
	}
	return needParent("an ipvlan", outer)
}

func (k IPVLAN) fields() (Kind, []field) { return &k, k.list() }

func (k *IPVLAN) list() []field {
	return []field{
		{1, "IFLA_IPVLAN_MODE", &k.Mode, u16},
		{2, "IFLA_IPVLAN_FLAGS", []*bool{&k.Private, &k.VEPA}, bits{}},
	}
}

func (IPVTAP) name() string { return "ipvtap" }

func (k IPVTAP) fields() (Kind, []field) { return &k, k.list() }
