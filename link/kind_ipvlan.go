package link

import "github.com/boxwire/boxwire/internal/refuse"

// IPVLAN shares the hardware address of the link below (Spec.Parent, required):
// packets are distinguished by their IP address. Made with Spec.NS it hangs a box on
// the parent's network where switches allow one hardware address only. The
// parent itself and its ipvlans do not reach each other.
//
// Needs the kernel's module "ipvlan". See ip-link(8), IFLA_IPVLAN_* in
// linux/if_link.h.
type IPVLAN struct {
	Mode *IPVLANMode // IPVLANL3; one for all of a parent (MODE)

	// Private ones of a parent do not reach each other; with VEPA they meet
	// on an outside switch that sends packets back. Not both; one setting
	// for all of a parent. (FLAGS)
	Private, VEPA bool
}

// IPVTAP is an [IPVLAN] whose packets a program reads and writes at /dev/tapN,
// where N is the link's index. Needs the kernel's module "ipvtap".
type IPVTAP struct{ IPVLAN }

// IPVLANMode says on which layer an ipvlan works, IPVLAN_MODE_* in
// linux/if_link.h.
type IPVLANMode uint16

// The values of IPVLANMode.
const (
	IPVLANL2  IPVLANMode = 0 // Ethernet: ARP and multicast work
	IPVLANL3  IPVLANMode = 1 // routed: neither does
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
