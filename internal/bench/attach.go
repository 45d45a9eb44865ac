package main

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"golang.org/x/sys/unix"
)

var gateway = netip.MustParseAddr(gateway4)

var attachRow = row{
	name: "attach",
	work: "a namespace with lo up, a veth pair made in place with one end on a bridge, an address and the default route",
	unit: "box",
	n:    200,
	run: func(ctx context.Context, b *bout) error {
		contenders, err := each(ctx, boxwireAttach, floorAttach, inPlaceAttach, moveAttach)
		if err != nil {
			return err
		}
		if err := b.interleave(ctx, b.n, contenders...); err != nil {
			return err
		}
		b.atMost(nameBoxwire, nameFloor, 1.10)
		b.atMost(nameBoxwire, nameInPlace, 0.9)
		b.atMost(nameBoxwire, nameMove, 0.12)
		return nil
	},
}

// The contenders' names.
const (
	nameBoxwire = "boxwire"
	nameFloor   = "floor"
	nameInPlace = "vishvananda"
	nameMove    = "vishvananda, then move"
)

// each gives every contender a host of its own.
func each(ctx context.Context, make ...func(*host) (*contender, error)) ([]*contender, error) {
	var all []*contender
	for _, m := range make {
		h, err := newHost(ctx)
		if err != nil {
			return nil, err
		}
		c, err := m(h)
		if err != nil {
			return nil, err
		}
		if c.check == nil {
			c.check = h.check
		}
		own := c.close
		c.close = func() error {
			if own != nil {
				own()
			}
			return h.close()
		}
		all = append(all, c)
	}
	return all, nil
}

func boxwireAttach(h *host) (*contender, error) {
	return &contender{name: nameBoxwire, round: func(ctx context.Context, i int) (time.Duration, error) {
		var ns *netns.NS
		d, err := took(func() (err error) {
			if ns, err = netns.New(ctx); err != nil {
				return err
			}
			return plug(ctx, h, ns, i)
		})
		if err != nil {
			return d, err
		}
		defer ns.Close()
		return d, h.keep(ns)
	}}, nil
}

// plug connects a namespace to the host's bridge, as box i.
func plug(ctx context.Context, h *host, ns *netns.NS, i int) error {
	_, err := link.Create(ctx, h.ns, link.Spec{
		Name: hostLink(i), Up: true, Master: h.bridge,
		Kind: link.Veth{Peer: link.Spec{
			NS: ns, Name: "eth0", Up: true,
			Addrs: []netip.Prefix{boxAddr(i)},
		}},
	})
	if err != nil {
		return err
	}
	return route.Add(ctx, ns, route.Default(gateway))
}

// floorAttach sends what the kernel needs for the same, and reads nothing back:
// the index of a new namespace's first link is 2.
func floorAttach(h *host) (*contender, error) {
	return floorBoxes(h, nameFloor, func(i int) (p parcel) {
		p.pair, p.fdAt = pairMessage(0, h.bridge, hostLink(i))
		p.box = [][]byte{boxMessages(i)}
		return p
	})
}

// A parcel are the messages for one box, one send each.
type parcel struct {
	pair []byte   // makes the pair, on the host
	fdAt int      // where the descriptor of the box's namespace goes in it
	box  [][]byte // sent inside the box
	back []byte   // sent on the host at last; nil: nothing
}

// floorBoxes makes a contender that makes namespaces and sends parcels.
func floorBoxes(h *host, name string, prepare func(i int) parcel) (*contender, error) {
	sock, err := openFloor(h.ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &contender{name: name, close: sock.Close, round: func(_ context.Context, i int) (time.Duration, error) {
		loUp := floor.Message(nil, unix.RTM_NEWLINK, unix.NLM_F_ACK, floor.IfInfo(1, true))
		p := prepare(i)
		var ns int
		var in *floor.Socket
		d, err := took(func() (err error) {
			if ns, in, err = floorNamespace(loUp); err != nil {
				return err
			}
			binary.NativeEndian.PutUint32(p.pair[p.fdAt:], uint32(ns))
			if err := sock.Send(p.pair); err != nil {
				return err
			}
			for _, messages := range p.box {
				if err := in.Send(messages); err != nil {
					return err
				}
			}
			if p.back == nil {
				return nil
			}
			return sock.Send(p.back)
		})
		if err != nil {
			return d, err
		}
		h.boxes = append(h.boxes, os.NewFile(uintptr(ns), "netns"))
		return d, in.Close()
	}}, nil
}

// openFloor opens a raw socket in a namespace.
func openFloor(ns *netns.NS, family int) (sock *floor.Socket, err error) {
	err = within(ns, func() (err error) {
		sock, err = floor.Open(family)
		return err
	})
	return sock, err
}

// floorNamespace makes a namespace with its loopback link up, and a socket in it.
func floorNamespace(loUp []byte) (ns int, in *floor.Socket, err error) {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(home)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, nil, err
	}
	ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		in, err = floor.Open(unix.NETLINK_ROUTE)
	}
	if err == nil {
		err = in.Send(loUp)
	}
	if serr := unix.Setns(home, unix.CLONE_NEWNET); serr != nil {
		return -1, nil, serr // the thread is kept, and ends with the program
	}
	runtime.UnlockOSThread()
	return ns, in, err
}

// pairMessage builds the message that makes a box's pair, and says where the
// descriptor of its namespace has to be written. Index and master may be 0.
func pairMessage(index, master int, name string) (msg []byte, fdAt int) {
	const vethInfoPeer = 1
	b := floor.IfInfo(index, true)
	b = nl.AppendString(b, unix.IFLA_IFNAME, name)
	if master != 0 {
		b = nl.AppendU32(b, unix.IFLA_MASTER, uint32(master))
	}
	b, info := nl.Begin(b, unix.IFLA_LINKINFO)
	b = nl.AppendString(b, unix.IFLA_INFO_KIND, "veth")
	b, data := nl.Begin(b, unix.IFLA_INFO_DATA)
	b, peer := nl.Begin(b, vethInfoPeer)
	b = append(b, floor.IfInfo(0, false)...)
	b = nl.AppendString(b, unix.IFLA_IFNAME, "eth0")
	b = nl.AppendU32(b, unix.IFLA_NET_NS_FD, 0)
	fdAt = 16 + len(b) - 4
	nl.End(b, peer)
	nl.End(b, data)
	nl.End(b, info)
	return floor.Message(nil, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, b), fdAt
}

// boxMessages builds what is sent inside box i: link up, address, default route.
func boxMessages(i int) []byte {
	const eth0 = 2
	msgs := floor.Message(nil, unix.RTM_NEWLINK, 0, floor.IfInfo(eth0, true))

	addr := boxAddr(i).Addr().As4()
	a := binary.NativeEndian.AppendUint32([]byte{unix.AF_INET, 16, 0, 0}, eth0)
	a = nl.AppendAttr(a, unix.IFA_LOCAL, addr[:])
	a = nl.AppendAttr(a, unix.IFA_ADDRESS, addr[:])
	a = nl.AppendAttr(a, unix.IFA_BROADCAST, []byte{10, 88, 255, 255})
	msgs = floor.Message(msgs, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a)

	gw := gateway.As4()
	r := []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	r = nl.AppendAttr(r, unix.RTA_GATEWAY, gw[:])
	return floor.Message(msgs, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, r)
}

// within runs fn in a namespace.
func within(ns *netns.NS, fn func() error) error {
	_, err := netns.Do(context.Background(), ns, func(context.Context) (struct{}, error) { return struct{}{}, fn() })
	return err
}
