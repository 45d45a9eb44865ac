package link

import (
	"bytes"
	"encoding/binary"
	"errors"

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
	var s linkStore
	return s.decode(l, b)
}

// linkStore keeps what the links of a list refer to in few allocations.
type linkStore struct {
	names names
	macs  arena
	kind  string // of the link before
}

func (s *linkStore) decode(l *Link, b []byte) error {
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
			l.Name = s.names.clone(untilNUL(w.Data()))
		case unix.IFLA_MTU:
			l.MTU = int(w.U32())
		case unix.IFLA_ADDRESS:
			l.MAC = s.macs.clone(w.Data())
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
			kind, err := infoKind(w.Nested(), s.kind)
			if err != nil {
				return err
			}
			s.kind, l.Kind = kind, kind
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

// kindOfLink returns the kind in the body of an RTM_NEWLINK message, or "".
func kindOfLink(b []byte) (kind string) {
	if len(b) < unix.SizeofIfInfomsg {
		return ""
	}
	for w := nl.Walk(b[unix.SizeofIfInfomsg:]); w.Next(); {
		if w.Type() == unix.IFLA_LINKINFO {
			kind, _ = infoKind(w.Nested(), "")
		}
	}
	return kind
}

// infoKind returns the kind in IFLA_LINKINFO.
func infoKind(w nl.Walker, last string) (kind string, err error) {
	for w.Next() {
		if w.Type() == unix.IFLA_INFO_KIND {
			kind = kindName(w.Data(), last)
		}
	}
	return kind, w.Err()
}

// kindName returns the NUL-terminated name in b, without an allocation for the
// kinds that a container host has by the thousand, and for last.
func kindName(b []byte, last string) string {
	switch b = untilNUL(b); string(b) {
	case last:
		return last
	case "veth":
		return "veth"
	case "bridge":
		return "bridge"
	}
	return string(b)
}

// untilNUL cuts a text off at its NUL.
func untilNUL(b []byte) []byte {
	b, _, _ = bytes.Cut(b, []byte{0})
	return b
}
