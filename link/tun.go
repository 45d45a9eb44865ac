package link

import "github.com/boxwire/boxwire/internal/refuse"

// Tun is a link whose other end is a program: what is sent into it the program
// reads from a descriptor, and what the program writes comes out of it. Without
// Tap it carries IP packets, with Tap Ethernet frames.
//
// [OpenTun] makes one and returns its descriptors; it goes when the last of them
// is closed, unless it is Persist. [Create] makes one without descriptors, which
// has to be Persist; a program attaches to it by [Link.OpenQueues].
//
// Needs the kernel's module "tun" and the device /dev/net/tun. See
// Documentation/networking/tuntap.rst in the kernel's source, ip-tuntap(8), and
// IFLA_TUN_* in linux/if_link.h.
type Tun struct {
	Tap        bool // Ethernet frames (IFF_TAP)
	MultiQueue bool // may have several descriptors, between which flows are spread (IFF_MULTI_QUEUE)
	Persist    bool // stays without a descriptor (TUNSETPERSIST)

	// What stands before each packet at the descriptor: 4 bytes of struct
	// tun_pi, and a struct virtio_net_hdr of 10 bytes. Without them a read
	// gives the bare packet.
	PacketInfo   bool // (without IFF_NO_PI)
	VirtioHeader bool // (IFF_VNET_HDR)

	// Who may attach to it without CAP_NET_ADMIN: a user or the members of a
	// group, by their ids. Nil: nobody. (TUNSETOWNER, TUNSETGROUP)
	Owner, Group *uint32
}

func (Tun) name() string { return "tun" }

func (k Tun) check(outer *Spec) error {
	if !k.Tap {
		return noMAC("a TUN device", outer)
	}
	return nil
}

// options only reads: a Tun is made by ioctls on its descriptor.
func (k Tun) options(o *options) Kind {
	numberp(o, 1, "IFLA_TUN_OWNER", 4, &k.Owner)
	numberp(o, 2, "IFLA_TUN_GROUP", 4, &k.Group)
	mode := uint8(1)
	if k.Tap {
		mode = 2
	}
	number(o, 3, "IFLA_TUN_TYPE", 1, &mode)
	k.Tap = mode == 2
	flag(o, 4, "IFLA_TUN_PI", 1, &k.PacketInfo)
	flag(o, 5, "IFLA_TUN_VNET_HDR", 1, &k.VirtioHeader)
	flag(o, 6, "IFLA_TUN_PERSIST", 1, &k.Persist)
	flag(o, 7, "IFLA_TUN_MULTI_QUEUE", 1, &k.MultiQueue)
	return k
}

// noMAC refuses a hardware address where the kind has none.
func noMAC(what string, s *Spec) error {
	if s.MAC != nil {
		return refuse.Input("%s has no hardware address: MAC must be nil", what)
	}
	return nil
}

// needParent refuses a kind that lies on another link, without one.
func needParent(what string, s *Spec) error {
	if s.Parent == 0 {
		return refuse.Input("%s needs a Parent", what)
	}
	return nil
}
