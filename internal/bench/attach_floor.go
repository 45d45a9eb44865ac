package main

import (
	"context"
	"encoding/binary"
	"os"
	"runtime"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// floorAttach sends what the kernel needs for the same, and reads nothing back:
// the index of a new namespace's first link is 2.
func floorAttach(h *host) (*contender, error) {
	return floorBoxes(h, nameFloor, h.parcel)
}

// parcel is what box i needs on the host's bridge.
func (h *host) parcel(i int) parcel { return h.parcelOf(i, oneQueue) }

// oneQueue is the number of queues that the library gives each end of a pair.
const oneQueue = 1

func (h *host) parcelOf(i int, queues uint32) (p parcel) {
	p.pair, p.fdAt = pair{master: h.bridge, name: hostLink(i), up: true, queues: queues}.message()
	p.box = [][]byte{boxMessages(i)}
	return p
}

// A parcel are the messages for one box, one send each.
type parcel struct {
	pair []byte   // makes the pair, on the host
	fdAt int      // where the descriptor of the box's namespace goes in it
	box  [][]byte // sent inside the box
	back []byte   // sent on the host at last; nil: nothing
}

// deliver sends a parcel to the host and into the namespace of the box.
func (p parcel) deliver(host, in *floor.Socket, ns int) error {
	binary.NativeEndian.PutUint32(p.pair[p.fdAt:], uint32(ns))
	if err := host.Send(p.pair); err != nil {
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
	return host.Send(p.back)
}

// floorBoxes makes a contender that makes namespaces and sends parcels.
func floorBoxes(h *host, name string, prepare func(i int) parcel) (*contender, error) {
	return floorContender(h, name, prepare, false)
}

// floorContender does so; where the namespaces are made beforehand, that is
// untimed.
func floorContender(h *host, name string, prepare func(i int) parcel, beforehand bool) (*contender, error) {
	sock, err := openFloor(h.ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	c := &contender{name: name, close: sock.Close}
	c.round = func(_ context.Context, i int) (d time.Duration, err error) {
		loUp, p := loopbackUp(), prepare(i)
		ns, in := -1, (*floor.Socket)(nil)
		if beforehand {
			if ns, in, err = floorNamespace(loUp); err != nil {
				return 0, err
			}
		}
		d, err = took(func() (err error) {
			if !beforehand {
				begin := time.Now()
				if ns, in, err = floorNamespace(loUp); err != nil {
					return err
				}
				c.namespaces = append(c.namespaces, time.Since(begin))
			}
			return p.deliver(sock, in, ns)
		})
		if err != nil {
			return d, err
		}
		h.boxes = append(h.boxes, os.NewFile(uintptr(ns), "netns"))
		return d, in.Close()
	}
	return c, nil
}

func loopbackUp() []byte {
	return floor.Message(nil, unix.RTM_NEWLINK, unix.NLM_F_ACK, floor.IfInfo(1, true))
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

// A pair is what a box's pair is made with. What is 0 is the kernel's own.
type pair struct {
	index, master int    // of the host's end
	group         uint32 // likewise
	name          string
	up            bool
	queues        uint32 // of both ends, each way
}

// message builds the message that makes the pair, and says where the descriptor
// of the box's namespace has to be written.
func (p pair) message() (msg []byte, fdAt int) {
	const vethInfoPeer = 1
	queues := func(b []byte) []byte {
		if p.queues == 0 {
			return b
		}
		return nl.AppendU32(nl.AppendU32(b, unix.IFLA_NUM_TX_QUEUES, p.queues), unix.IFLA_NUM_RX_QUEUES, p.queues)
	}
	b := floor.IfInfo(p.index, p.up)
	b = queues(nl.AppendString(b, unix.IFLA_IFNAME, p.name))
	if p.master != 0 {
		b = nl.AppendU32(b, unix.IFLA_MASTER, uint32(p.master))
	}
	if p.group != 0 {
		b = nl.AppendU32(b, unix.IFLA_GROUP, p.group)
	}
	b, info := nl.Begin(b, unix.IFLA_LINKINFO)
	b = nl.AppendString(b, unix.IFLA_INFO_KIND, "veth")
	b, data := nl.Begin(b, unix.IFLA_INFO_DATA)
	b, peer := nl.Begin(b, vethInfoPeer)
	b = append(b, floor.IfInfo(0, false)...)
	b = queues(nl.AppendString(b, unix.IFLA_IFNAME, "eth0"))
	b = nl.AppendU32(b, unix.IFLA_NET_NS_FD, 0)
	fdAt = 16 + len(b) - 4
	nl.End(b, peer)
	nl.End(b, data)
	nl.End(b, info)
	return floor.Message(nil, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, b), fdAt
}

// boxMessages builds what is sent inside box i: link up, address, default route.
func boxMessages(i int) []byte {
	return boxAddress(floor.Message(nil, unix.RTM_NEWLINK, 0, floor.IfInfo(eth0, true)), i)
}

// boxAddress appends the address and the default route.
func boxAddress(msgs []byte, i int) []byte {
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
