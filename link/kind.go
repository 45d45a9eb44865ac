package link

import (
	"reflect"
)

// Kind says what a link is, with the options of that kind: [Bridge], [Veth],
// [Dummy], [IFB], [VLAN], [Macvlan], [Macvtap], [IPVLAN], [IPVTAP], [VXLAN],
// [Geneve], [VRF], [Bond], [Tun], [Netkit], [WireGuard], or [Other] for any other
// kind of the kernel. The set is closed: other packages cannot implement Kind.
//
// The kernel sets a field that is zero. In what [Link.Details] reads, a field is
// set if the kernel reports it. The kernel decides which options can be changed
// later.
type Kind interface {
	// name is the kernel's name of the kind (IFLA_INFO_KIND).
	name() string

	// check refuses bad options that fields does not refuse by their ranges.
	// outer is the spec that holds the kind.
	check(outer *Spec) error

	// fields declares the contents of IFLA_INFO_DATA. It returns a pointer to a
	// copy of the kind, and the fields point into that copy.
	fields() (Kind, []field)
}

// options are the options of a kind that a call works on: a copy of the caller's, with
// its declaration.
type options struct {
	kind   Kind      // points to the copy; nil: none are given
	fields []field   // point into it
	other  *otherEnd // of a pair, among the fields; or nil
}

func declare(k Kind) (o options) {
	if k == nil {
		return o
	}
	o.kind, o.fields = k.fields()
	for i := range o.fields {
		if p, ok := o.fields[i].value.(*otherEnd); ok {
			o.other = p
		}
	}
	return o
}

// peer returns the spec of the other end of a pair, or nil.
func (o *options) peer() *Spec {
	if o.other == nil {
		return nil
	}
	return o.other.spec
}

// pairMTU gives either end of a pair the MTU of the other, if it has none of its own. mtu
// is that of the outer end.
func (o *options) pairMTU(mtu *int) {
	switch p := o.peer(); {
	case p == nil || p.Name == "":
	case p.MTU == 0:
		p.MTU = *mtu
	case *mtu == 0:
		*mtu = p.MTU
	}
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

// decodeKind reads a kind from IFLA_INFO_DATA, and returns the attributes that it has
// no field for.
func decodeKind(name string, in *attrs) (Kind, []Attr) {
	k, fields := kindOf(name).fields()
	read := in.decode(fields)
	rest := in.rest(&read)
	switch k := k.(type) {
	case *Geneve:
		if k.TTLInherit {
			k.TTL = 0 // the kernel reports the one from before, which is not in use
		}
	case *Other:
		k.Data, rest = rest, nil
	}
	return reflect.ValueOf(k).Elem().Interface().(Kind), rest
}

// hasOwnMAC reports whether the kernel draws a hardware address for a new link of
// the kind, and keeps one that is given. Of an unknown kind that is not known.
func hasOwnMAC(k Kind) bool {
	switch k := k.(type) {
	case Bridge, Veth, Dummy, IFB, VRF:
		return true
	case Macvlan:
		return k.Mode != MacvlanPassthru
	case Macvtap:
		return k.Mode != MacvlanPassthru
	case VXLAN:
		return !k.GPE
	case Geneve:
		return !k.InnerProtoInherit
	case Tun:
		return k.Tap
	case Netkit:
		return k.Mode != nil && *k.Mode == NetkitL2
	}
	return false
}

// Attr is one netlink attribute as it stands in a message (netlink(7)). Numbers in
// Data are in the machine's byte order unless the uapi header says otherwise.
type Attr struct {
	Type uint16 // without the flag bits, see netlink(7)
	Data []byte // the payload, without header and padding
}
