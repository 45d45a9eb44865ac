package link

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

var errShort = errors.New("malformed reply: shorter than its header")

// decodeLink reads the body of an RTM_NEWLINK message into l, all but the
// namespace. It keeps nothing of b. Attributes it does not know are skipped.
func decodeLink(l *Link, b []byte) error {
	if len(b) < unix.SizeofIfInfomsg {
		return errShort
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	*l = Link{
		Index:    int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Up:       flags&unix.IFF_UP != 0,
		Running:  flags&unix.IFF_RUNNING != 0,
		LinkNSID: -1,
	}
	iflink := 0
	w := nl.Walk(b[unix.SizeofIfInfomsg:])
	for w.Next() {
		switch w.Type() {
		case unix.IFLA_IFNAME:
			l.Name = w.String()
		case unix.IFLA_MTU:
			l.MTU = int(w.U32())
		case unix.IFLA_ADDRESS:
			if len(w.Data()) > 0 {
				l.MAC = append(net.HardwareAddr(nil), w.Data()...)
			}
		case unix.IFLA_MASTER:
			l.Master = int(int32(w.U32()))
		case unix.IFLA_OPERSTATE:
			l.OperState = OperState(w.U8())
		case unix.IFLA_LINK:
			iflink = int(int32(w.U32()))
		case unix.IFLA_LINK_NETNSID:
			l.LinkNSID = int(int32(w.U32()))
		case unix.IFLA_LINKINFO:
			in := w.Nested()
			for in.Next() {
				if in.Type() == unix.IFLA_INFO_KIND {
					l.Kind = kindName(in.Data())
				}
			}
			if err := in.Err(); err != nil {
				return err
			}
		}
	}
	switch l.Kind {
	case "veth", "netkit":
		l.PeerIndex = iflink
	default:
		l.ParentIndex = iflink
	}
	return w.Err()
}

// kindName returns the NUL-terminated name in b without an allocation for the
// kinds that a container host has by the thousand.
func kindName(b []byte) string {
	for i, c := range b {
		if c == 0 {
			b = b[:i]
			break
		}
	}
	switch string(b) {
	case "veth":
		return "veth"
	case "bridge":
		return "bridge"
	}
	return string(b)
}

// decodeAddr reads the body of an RTM_NEWADDR message: the address and the
// index of its link.
func decodeAddr(b []byte) (a Addr, index int, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, 0, errShort
	}
	a.Flags = AddrFlags(b[2])
	a.Scope = AddrScope(b[3])
	bits := int(b[1])
	index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	family := b[0]

	var local, address netip.Addr
	w := nl.Walk(b[unix.SizeofIfAddrmsg:])
	for w.Next() {
		switch w.Type() {
		case unix.IFA_LOCAL:
			local = addrOf(family, w.Data())
		case unix.IFA_ADDRESS:
			address = addrOf(family, w.Data())
		case unix.IFA_BROADCAST:
			a.Broadcast = addrOf(family, w.Data())
		case unix.IFA_FLAGS: // all 32 bits; the header has 8
			a.Flags = AddrFlags(w.U32())
		}
	}
	if err := w.Err(); err != nil {
		return a, index, err
	}
	switch {
	case !local.IsValid(): // IPv6, unless it is point-to-point
		local = address
	case address.IsValid() && address != local:
		a.Peer = address
	}
	a.Prefix = netip.PrefixFrom(local, bits)
	if !a.Prefix.IsValid() {
		return a, index, errors.New("malformed reply: no valid address in it")
	}
	return a, index, nil
}

// addrOf reads an address of the family; the zero Addr when b does not hold one.
func addrOf(family uint8, b []byte) netip.Addr {
	switch {
	case family == unix.AF_INET && len(b) >= 4:
		return netip.AddrFrom4([4]byte(b))
	case family == unix.AF_INET6 && len(b) >= 16:
		return netip.AddrFrom16([16]byte(b))
	}
	return netip.Addr{}
}
