package link

import (
	"encoding/binary"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// encoder is the part of a Kind that builds its request.
type encoder interface {
	// appendData appends IFLA_INFO_DATA's contents; none means that the
	// attribute is left out. peerFD is the descriptor of the peer's
	// namespace, -1 when the peer stays in the same one.
	appendData(b []byte, peerFD int) []byte

	// names names the attributes of the request.
	names(path []uint16) string
}

func (Bridge) appendData(b []byte, _ int) []byte { return b }

func (Bridge) names(path []uint16) string { return linkNames(path) }

// appendData appends VETH_INFO_PEER: a whole struct ifinfomsg with attributes
// behind it. Its flags must stay 0: IFF_UP there makes the kernel refuse the
// message with ENOTCONN, as the first end it brings up has no peer yet. The
// peer's IFLA_MASTER would be accepted and ignored; see finishPeer for both.
func (v Veth) appendData(b []byte, peerFD int) []byte {
	b, at := nl.Begin(b, vethInfoPeer)
	// The policy of this attribute is binary, not nested: without the flag.
	binary.NativeEndian.PutUint16(b[at+2:], vethInfoPeer)
	b = appendIfInfo(b, v.Peer.Index, 0, 0)
	b = appendCommon(b, &v.Peer)
	if peerFD >= 0 {
		b = nl.AppendU32(b, unix.IFLA_NET_NS_FD, uint32(peerFD))
	}
	nl.End(b, at)
	return b
}

func (Veth) names(path []uint16) string { return vethNames(path) }

// appendIfInfo appends a struct ifinfomsg.
func appendIfInfo(b []byte, index int, flags, change uint32) []byte {
	b = append(b, unix.AF_UNSPEC, 0, 0, 0) // family, padding, ifi_type
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// appendCommon appends what both ends of a veth carry in a create message.
func appendCommon(b []byte, s *Spec) []byte {
	b = nl.AppendString(b, unix.IFLA_IFNAME, s.Name)
	if s.MTU != 0 {
		b = nl.AppendU32(b, unix.IFLA_MTU, uint32(s.MTU))
	}
	if s.MAC != nil {
		b = nl.AppendAttr(b, unix.IFLA_ADDRESS, s.MAC)
	}
	return b
}

// newLink builds the message that makes the link.
func newLink(s *Spec, peerFD int) nl.Request {
	var flags uint32
	if s.Up {
		flags = unix.IFF_UP
	}
	b := appendIfInfo(make([]byte, 0, 192), s.Index, flags, flags)
	b = appendCommon(b, s)
	b, info := nl.Begin(b, unix.IFLA_LINKINFO)
	b = nl.AppendString(b, unix.IFLA_INFO_KIND, s.Kind.name())
	open := len(b)
	b, data := nl.Begin(b, unix.IFLA_INFO_DATA)
	empty := len(b)
	b = s.Kind.appendData(b, peerFD)
	if len(b) == empty {
		b = b[:open]
	} else {
		nl.End(b, data)
	}
	nl.End(b, info)
	if s.Master != 0 {
		b = nl.AppendU32(b, unix.IFLA_MASTER, uint32(s.Master))
	}
	return nl.Request{Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: b, Names: s.Kind.names}
}

// setFlags builds the message that brings a link up or down.
func setFlags(index int, up bool) nl.Request {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	return nl.Request{Type: unix.RTM_NEWLINK, Body: appendIfInfo(nil, index, flags, unix.IFF_UP), Names: linkNames}
}

func delLink(index int) nl.Request {
	return nl.Request{Type: unix.RTM_DELLINK, Body: appendIfInfo(nil, index, 0, 0), Names: linkNames}
}

// getLink asks for one link, by name or, with an empty name, by index, without
// the statistics that make up a fifth of the answer.
func getLink(name string, index int) nl.Request {
	b := appendIfInfo(make([]byte, 0, 48), index, 0, 0)
	b = nl.AppendU32(b, unix.IFLA_EXT_MASK, extMaskSkipStat)
	if name != "" {
		b = nl.AppendString(b, unix.IFLA_IFNAME, name)
	}
	return nl.Request{Type: unix.RTM_GETLINK, Body: b, Names: linkNames}
}
