package link

import "github.com/boxwire/boxwire/internal/refuse"

// VRF is a virtual routing and forwarding domain. The links that have it as
// Spec.Master use its routing table and not the main one.
//
// It needs the kernel's module vrf. See ip-link(8), IFLA_VRF_TABLE in
// linux/if_link.h, and Documentation/networking/vrf.rst in the kernel's source.
type VRF struct {
	Table uint32 // number of the routing table, required: 1 to 4294967295
}

func (VRF) name() string { return "vrf" }

func (k VRF) check(*Spec) error {
	if k.Table == 0 {
		return refuse.Input("a VRF needs a Table")
	}
	return nil
}

func (k VRF) fields() (Kind, []field) {
	return &k, []field{
		{1, "IFLA_VRF_TABLE", &k.Table, u32},
	}
}
