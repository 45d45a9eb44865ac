package main

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/route"
	"golang.org/x/sys/unix"
)

// What the floor does with an answer: it reads it into the values that the library
// hands out, by hand, and only what the tables of the row have.

func floorAddr(a *link.Addr, b []byte) {
	a.Scope, a.Link = link.AddrScope(b[3]), int(binary.NativeEndian.Uint32(b[4:]))
	for at := (floor.Attrs{Rest: b[8:]}); at.Next(); {
		switch at.Type {
		case unix.IFA_LOCAL:
			a.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte(at.Data)), int(b[1]))
		case unix.IFA_ADDRESS:
			if peer := netip.AddrFrom4([4]byte(at.Data)); peer != a.Prefix.Addr() {
				a.Peer = peer
			}
		case unix.IFA_BROADCAST:
			a.Broadcast = netip.AddrFrom4([4]byte(at.Data))
		case unix.IFA_LABEL:
			a.Label = cString(at.Data)
		case unix.IFA_FLAGS:
			a.Flags = link.AddrFlags(at.U32())
		case unix.IFA_RT_PRIORITY:
			a.Metric = at.U32()
		case unix.IFA_CACHEINFO:
			if v := at.U32(); v != 1<<32-1 {
				a.Preferred = time.Duration(v) * time.Second
			}
			if v := binary.NativeEndian.Uint32(at.Data[4:]); v != 1<<32-1 {
				a.Valid = time.Duration(v) * time.Second
			}
		}
	}
}

func floorLink(l *link.Link, b []byte) {
	const running = unix.IFF_RUNNING | unix.IFF_LOWER_UP
	flags := binary.NativeEndian.Uint32(b[8:])
	l.Index, l.Up, l.Running, l.LinkNSID = int(binary.NativeEndian.Uint32(b[4:])), flags&unix.IFF_UP != 0, flags&running == running, -1
	for at := (floor.Attrs{Rest: b[16:]}); at.Next(); {
		switch at.Type {
		case unix.IFLA_IFNAME:
			l.Name = cString(at.Data)
		case unix.IFLA_MTU:
			l.MTU = int(at.U32())
		case unix.IFLA_ADDRESS:
			l.MAC = net.HardwareAddr(bytes.Clone(at.Data))
		case unix.IFLA_MASTER:
			l.Master = int(at.U32())
		case unix.IFLA_GROUP:
			l.Group = at.U32()
		case unix.IFLA_OPERSTATE:
			l.OperState = link.OperState(at.Data[0])
		case unix.IFLA_LINK:
			l.PeerIndex = int(at.U32())
		case unix.IFLA_LINK_NETNSID:
			l.LinkNSID = int(int32(at.U32()))
		case unix.IFLA_LINKINFO:
			for in := (floor.Attrs{Rest: at.Data}); in.Next(); {
				if in.Type == unix.IFLA_INFO_KIND {
					if l.Kind = "veth"; string(in.Data) != "veth\x00" {
						l.Kind = cString(in.Data)
					}
				}
			}
		}
	}
}

func floorRoute(r *route.Route, b []byte) {
	*r = route.Route{
		TOS: b[3], Table: route.Table(b[4]), Protocol: route.Protocol(b[5]), Scope: route.Scope(b[6]), Type: route.Type(b[7]),
		Flags: route.Flags(binary.NativeEndian.Uint32(b[8:])),
	}
	for at := (floor.Attrs{Rest: b[12:]}); at.Next(); {
		switch at.Type {
		case unix.RTA_DST:
			r.Dst = netip.PrefixFrom(netip.AddrFrom4([4]byte(at.Data)), int(b[1]))
		case unix.RTA_GATEWAY:
			r.Via = netip.AddrFrom4([4]byte(at.Data))
		case unix.RTA_PREFSRC:
			r.Src = netip.AddrFrom4([4]byte(at.Data))
		case unix.RTA_OIF:
			r.Dev = int(at.U32())
		case unix.RTA_PRIORITY:
			r.Metric = at.U32()
		case unix.RTA_TABLE:
			r.Table = route.Table(at.U32())
		}
	}
}

func cString(b []byte) string { return string(bytes.TrimSuffix(b, []byte{0})) }

// walkAll steps over the attributes behind a header, as any reader has to.
func walkAll(header int) func([]byte) {
	sum := 0
	return func(body []byte) {
		for at := (floor.Attrs{Rest: body[header:]}); at.Next(); {
			sum += int(at.Type)
		}
	}
}
