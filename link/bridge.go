package link

// Bridge is an Ethernet bridge in the kernel. Other links become its ports by
// naming its index as their Spec.Master; it takes at most 1,023 of them.
//
// A bridge made without Spec.MAC carries the lowest hardware address of its
// ports, and changes it as ports come and go; give it one where neighbours
// keep it in their caches. Without Spec.MTU its MTU follows its ports, too.
// A bridge has a carrier only while at least one port has.
//
// Needs the kernel's module "bridge". See ip-link(8), IFLA_BR_* in
// linux/if_link.h.
type Bridge struct{}

func (Bridge) name() string { return "bridge" }

func (Bridge) check(*Spec) error { return nil }
