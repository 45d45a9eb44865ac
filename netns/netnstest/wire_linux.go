package netnstest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/netns"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// wiring makes links, addresses and routes for a test, which fails when they
// cannot be made. It is not package link, whose own tests use this one.
type wiring struct {
	t   testing.TB
	ctx context.Context
}

// boxIndex is the index of a box's link, the first after lo.
const boxIndex = 2

// veth makes a pair, both ends up: name in ns, with a master unless that is 0,
// and eth0 in the peer's namespace.
func (w *wiring) veth(ns *netns.NS, name string, peer *netns.NS, master uint32) {
	w.t.Helper()
	err := peer.WithFd(func(fd int) error {
		b := nl.AppendString(ifinfomsg(0, unix.IFF_UP), unix.IFLA_IFNAME, name)
		if master != 0 {
			b = nl.AppendU32(b, unix.IFLA_MASTER, master)
		}
		b, info := nl.Begin(b, unix.IFLA_LINKINFO)
		b = nl.AppendString(b, unix.IFLA_INFO_KIND, "veth")
		b, data := nl.Begin(b, unix.IFLA_INFO_DATA)
		const vethInfoPeer = 1 // linux/veth.h
		b, other := nl.Begin(b, vethInfoPeer)
		b = append(b, ifinfomsg(boxIndex, 0)...)
		b = nl.AppendString(b, unix.IFLA_IFNAME, "eth0")
		b = nl.AppendU32(b, unix.IFLA_NET_NS_FD, uint32(fd))
		nl.End(b, other)
		nl.End(b, data)
		nl.End(b, info)
		return w.call(ns, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b)
	})
	w.check(ns, "link "+name, err)
	w.check(peer, "link eth0", w.call(peer, unix.RTM_NEWLINK, 0, ifinfomsg(boxIndex, unix.IFF_UP)))
	w.ready(ns, name)
	w.ready(peer, "eth0")
}

// ready waits until a link carries packets. Of a pair, the end that comes up first
// drops them until the kernel has seen in the background that the other did.
func (w *wiring) ready(ns *netns.NS, name string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	events, err := nsconn.Subscribe(ctx, ns, unix.NETLINK_ROUTE, nl.EventConfig{Groups: []uint32{unix.RTNLGRP_LINK}})
	w.check(ns, "link "+name, err)
	defer events.Close()
	for {
		if w.link(ns, name).State == rtnetlink.OperStateUp {
			return
		}
		err := events.Receive(ctx, func(int, nl.Message) error { return nil })
		if err != nil && !errors.Is(err, nl.ErrOverflow) {
			w.check(ns, "waiting for link "+name+" to come up", err)
		}
	}
}

// bridge makes a bridge that is up, and returns its index. It has a hardware
// address that was set: another one would change as its ports come and go.
func (w *wiring) bridge(ns *netns.NS, name string) uint32 {
	w.t.Helper()
	mac := make([]byte, 6)
	rand.Read(mac)         // never fails
	mac[0] = mac[0]&^1 | 2 // unicast, local
	b := nl.AppendString(ifinfomsg(0, unix.IFF_UP), unix.IFLA_IFNAME, name)
	b = nl.AppendAttr(b, unix.IFLA_ADDRESS, mac)
	b, info := nl.Begin(b, unix.IFLA_LINKINFO)
	b = nl.AppendString(b, unix.IFLA_INFO_KIND, "bridge")
	nl.End(b, info)
	w.check(ns, "link "+name, w.call(ns, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b))
	return uint32(w.link(ns, name).Index)
}

// address gives a box's link its addresses. They are of use at once, without
// duplicate address detection.
func (w *wiring) address(b Box) {
	w.t.Helper()
	index := uint32(w.link(b.NS, b.Link).Index)
	for _, p := range b.prefixes() {
		const size = 8 // struct ifaddrmsg: family, prefix length, flags, scope, index
		m := append(make([]byte, 0, 64), family(p.Addr()), byte(p.Bits()), 0, 0)
		m = binary.NativeEndian.AppendUint32(m, index)
		m = nl.AppendAttr(m[:size], unix.IFA_LOCAL, p.Addr().AsSlice())
		m = nl.AppendAttr(m, unix.IFA_ADDRESS, p.Addr().AsSlice())
		if p.Addr().Is6() {
			m = nl.AppendU32(m, unix.IFA_FLAGS, unix.IFA_F_NODAD)
		}
		w.check(b.NS, "address "+p.String(), w.call(b.NS, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m))
	}
	if b.Addr6.IsValid() {
		w.solicitable(b.NS, index, b.Addr6.Addr())
	}
}

// solicitable waits until neighbours can find an IPv6 address: the kernel joins the
// group that they ask in the background, and a neighbour that has asked before
// asks again after a second. There is no event for it before Linux 6.14.
func (w *wiring) solicitable(ns *netns.NS, index uint32, addr netip.Addr) {
	w.t.Helper()
	group := netip.MustParseAddr("ff02::1:ff00:0").As16() // RFC 4291, 2.7.1
	a := addr.As16()
	copy(group[13:], a[13:])
	conn, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	w.check(ns, "address "+addr.String(), err)
	req := nl.Request{Type: unix.RTM_GETMULTICAST, Body: []byte{unix.AF_INET6, 0, 0, 0, 0, 0, 0, 0}}
	deadline := time.Now().Add(30 * time.Second)
	for joined := false; !joined; {
		err := conn.Dump(w.ctx, req, nil, func(m nl.Message) error {
			if len(m.Body) < unix.SizeofIfAddrmsg {
				return errShort
			}
			attrs := nl.Walk(m.Body[unix.SizeofIfAddrmsg:])
			for attrs.Next() {
				if attrs.Type() == unix.IFA_MULTICAST && binary.NativeEndian.Uint32(m.Body[4:]) == index {
					joined = joined || bytes.Equal(attrs.Data(), group[:])
				}
			}
			return attrs.Err()
		})
		if err == nil && !joined {
			if time.Now().After(deadline) {
				err = errors.New("it has not joined its solicited-node group")
			}
			time.Sleep(100 * time.Microsecond)
		}
		w.check(ns, "address "+addr.String(), err)
	}
}

// defaultRoute sends what a box has no other route for to another one.
func (w *wiring) defaultRoute(b, via Box) {
	w.t.Helper()
	for _, p := range via.prefixes() {
		gw := p.Addr()
		// struct rtmsg: family, lengths of destination and source, TOS, table,
		// protocol, scope, type, flags
		m := append(make([]byte, 0, 64), family(gw), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC,
			unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0)
		m = nl.AppendAttr(m, unix.RTA_GATEWAY, gw.AsSlice())
		w.check(b.NS, "default route via "+gw.String(), w.call(b.NS, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m))
	}
}

// link reads a link.
func (w *wiring) link(ns *netns.NS, name string) rtnl.Link {
	w.t.Helper()
	l, err := rtnl.LinkByName(w.ctx, ns, name)
	w.check(ns, "link "+name, err)
	return l
}

var errShort = errors.New("malformed reply: it is too short")

func (w *wiring) call(ns *netns.NS, typ, flags uint16, body []byte) error {
	conn, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	return conn.Call(w.ctx, nl.Request{Type: typ, Flags: flags, Body: body}, nil)
}

func (w *wiring) check(ns *netns.NS, what string, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("netnstest: %s in netns %v: %v", what, ns, err)
	}
}

// ifinfomsg is the header of a message about a link. up is IFF_UP or 0.
func ifinfomsg(index, up uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], up)
	binary.NativeEndian.PutUint32(b[12:], up)
	return b
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
