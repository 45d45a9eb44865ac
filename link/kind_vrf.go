package link

import "github.com/boxwire/boxwire/internal/refuse"

// VRF is a virtual routing and forwarding domain: links that name it as their
// Spec.Master use its routing table instead of the main one.
//
// Needs the kernel's module "vrf". See ip-link(8), IFLA_VRF_* in
// linux/if_link.h.
type VRF struct {
	Table uint32 // the routing table, required: 1 to 4294967295 (TABLE)
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
