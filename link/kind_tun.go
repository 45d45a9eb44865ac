package link

import "github.com/boxwire/boxwire/internal/refuse"

// Tun is a link whose other end is a program. The program reads from a descriptor
// what is sent into the link, and what it writes comes out of the link. The link
// carries IP packets, with Tap Ethernet frames.
//
// [OpenTun] makes a link and returns its descriptors. The link is deleted when the
// last of them is closed, unless Persist is set. [Create] makes a link without
// descriptors, for which Persist is required; [Link.OpenQueues] attaches to it.
//
// It needs the kernel's module tun and the device /dev/net/tun. See ip-tuntap(8),
// Documentation/networking/tuntap.rst in the kernel's source, and IFLA_TUN_* in
// linux/if_link.h.
type Tun struct {
	Tap        bool // carries Ethernet frames (IFF_TAP)
	MultiQueue bool // may have several descriptors, and the kernel spreads flows over them (IFF_MULTI_QUEUE)
	Persist    bool // outlives its descriptors (TUNSETPERSIST)

	// Headers before each packet at the descriptor: struct tun_pi of 4 bytes
	// and struct virtio_net_hdr of 10 bytes. Without them a read returns the
	// bare packet.
	PacketInfo   bool // (without IFF_NO_PI)
	VirtioHeader bool // (IFF_VNET_HDR)

	// Owner and Group are the ids of a user and of a group that may attach
	// without CAP_NET_ADMIN. Nil: none may. (TUNSETOWNER, TUNSETGROUP)
	Owner, Group *uint32
}

func (Tun) name() string { return "tun" }

func (k Tun) check(outer *Spec) error {
	if !k.Tap {
		return noMAC("a TUN device", outer)
	}
	return nil
}

// fields are read only: a Tun is made by ioctls on its descriptor.
func (k Tun) fields() (Kind, []field) {
	return &k, []field{
		{1, "IFLA_TUN_OWNER", &k.Owner, u32},
		{2, "IFLA_TUN_GROUP", &k.Group, u32},
		{3, "IFLA_TUN_TYPE", &k.Tap, tunType{}},
		{4, "IFLA_TUN_PI", &k.PacketInfo, u8},
		{5, "IFLA_TUN_VNET_HDR", &k.VirtioHeader, u8},
		{6, "IFLA_TUN_PERSIST", &k.Persist, u8},
		{7, "IFLA_TUN_MULTI_QUEUE", &k.MultiQueue, u8},
	}
}

// tunType is IFF_TUN (1) or IFF_TAP (2).
type tunType struct{ sameBytes }

func (tunType) isSet(any, bool) bool { return true }

func (tunType) append(b []byte, v any) []byte {
	if *v.(*bool) {
		return append(b, 2)
	}
	return append(b, 1)
}

func (tunType) parse(b []byte, v any, _ *store) { *v.(*bool) = len(b) > 0 && b[0] == 2 }

// noMAC refuses a hardware address where the kind has none.
func noMAC(what string, s *Spec) error {
	if s.MAC != nil {
		return refuse.Input("%s has no hardware address: MAC must be nil", what)
	}
	return nil
}

// needParent refuses a kind that lies on another link if the spec has no Parent.
func needParent(what string, s *Spec) error {
	if s.Parent == (Ref{}) {
		return refuse.Input("%s needs a Parent", what)
	}
	return nil
}
