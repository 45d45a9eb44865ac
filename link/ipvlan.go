package link

import "github.com/boxwire/boxwire/internal/refuse"

// IPVLAN shares the hardware address of the link below (Spec.Parent, required):
// packets are told apart by their IP address. Made with Spec.NS it hangs a box on
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

func (k IPVLAN) options(o *options) Kind {
	numberp(o, 1, "IFLA_IPVLAN_MODE", 2, &k.Mode)
	var flags uint16
	if k.Private {
		flags |= 1
	}
	if k.VEPA {
		flags |= 2
	}
	number(o, 2, "IFLA_IPVLAN_FLAGS", 2, &flags)
	k.Private, k.VEPA = flags&1 != 0, flags&2 != 0
	return k
}

func (IPVTAP) name() string { return "ipvtap" }

func (k IPVTAP) options(o *options) Kind {
	k.IPVLAN = k.IPVLAN.options(o).(IPVLAN)
	return k
}
