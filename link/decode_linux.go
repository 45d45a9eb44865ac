package link

import (
	"encoding/binary"
	"errors"
	"net"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

var errShort = errors.New("malformed reply: shorter than its header")

// running are the flags of a link that has a carrier. On older kernels (seen on
// 5.10) IFF_RUNNING alone is also set for a moment on one that has just come up
// without.
const running = unix.IFF_RUNNING | unix.IFF_LOWER_UP

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
		Running:  flags&running == running,
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
		case unix.IFLA_GROUP:
			l.Group = w.U32()
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
