package link

import (
	"reflect"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Kind says what a new link is, with the options of that kind: [Bridge], [Veth],
// [Dummy], [IFB], [VLAN], [Macvlan], [Macvtap], [IPVLAN], [IPVTAP], [VXLAN],
// [Geneve], [VRF], [Bond], [Tun], [Netkit], [WireGuard], or [Other] for the rest.
// The set is closed: other packages cannot implement Kind.
//
// In all of them a zero field is left to the kernel, and read back from it a
// field is set wherever the kernel says something. Which of them can be changed
// after the link was made is the kernel's to say.
type Kind interface {
	// name is the kernel's name of the kind (IFLA_INFO_KIND).
	name() string

	// check refuses bad options, as far as their ranges do not say it all.
	// outer is the spec that holds the kind.
	check(outer *Spec) error

	// options walks over the contents of IFLA_INFO_DATA. A walk that decodes
	// returns the kind, with what it read; what any other returns is of no use,
	// and may be nil.
	options(o *options) Kind
}

// kindOf returns the zero value of the kind with the kernel's name.
func kindOf(name string) Kind {
	switch name {
	case "bridge":
		return Bridge{}
	case "veth":
		return Veth{}
	case "dummy":
		return Dummy{}
	case "ifb":
		return IFB{}
	case "vlan":
		return VLAN{}
	case "macvlan":
		return Macvlan{}
	case "macvtap":
		return Macvtap{}
	case "ipvlan":
		return IPVLAN{}
	case "ipvtap":
		return IPVTAP{}
	case "vxlan":
		return VXLAN{}
	case "geneve":
		return Geneve{}
	case "vrf":
		return VRF{}
	case "bond":
		return Bond{}
	case "tun":
		return Tun{}
	case "netkit":
		return Netkit{}
	case "wireguard":
		return WireGuard{}
	}
	return Other{Name: name}
}

// checkKind refuses a kind that cannot be made.
func checkKind(k Kind, outer *Spec) error {
	if k == nil {
		return refuse.Input("no Kind is given")
	}
	if err := checkOptions(k); err != nil {
		return err
	}
	return k.check(outer)
}

// checkOptions refuses a kind that is none and options that are out of range.
func checkOptions(k Kind) error {
	switch k.(type) { // as kindOf has them
	case Bridge, Veth, Dummy, IFB, VLAN, Macvlan, Macvtap, IPVLAN, IPVTAP, VXLAN, Geneve, VRF, Bond, Tun, Netkit, WireGuard, Other:
	default: // a pointer to a kind, or a struct that embeds one
		if v := reflect.ValueOf(k); v.Kind() == reflect.Pointer && v.IsNil() {
			return refuse.Input("Kind is a nil %T", k)
		}
		return refuse.Input("Kind is a %T: give a plain value such as link.Bridge{}", k)
	}
	o := options{do: check}
	k.options(&o)
	return o.err
}

// Attr is one netlink attribute as it stands in a message, in the machine's byte
// order.
type Attr struct {
	Type uint16 // without the flag bits, see netlink(7)
	Data []byte // the payload, without header and padding
}
