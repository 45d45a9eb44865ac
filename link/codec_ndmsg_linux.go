package link

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Constants of linux/neighbour.h that golang.org/x/sys/unix lacks.
const (
	ndaProtocol = 12
	ndaNextHop  = 13
	ndaFlagsExt = 15
	ntfMaster   = unix.NTF_MASTER
	ntfSelf     = unix.NTF_SELF
	sizeofNdMsg = 12
)

var neighAttrs = map[uint16]string{
	unix.NDA_DST: "NDA_DST", unix.NDA_LLADDR: "NDA_LLADDR", unix.NDA_VLAN: "NDA_VLAN", unix.NDA_PORT: "NDA_PORT",
	unix.NDA_VNI: "NDA_VNI", unix.NDA_IFINDEX: "NDA_IFINDEX", unix.NDA_MASTER: "NDA_MASTER", unix.NDA_SRC_VNI: "NDA_SRC_VNI",
	ndaProtocol: "NDA_PROTOCOL", ndaNextHop: "NDA_NH_ID", ndaFlagsExt: "NDA_FLAGS_EXT",
}

func neighNames(path []uint16) string {
	return join(path, func(depth int) map[uint16]string {
		if depth == 0 {
			return neighAttrs
		}
		return nil
	})
}

// ndMsg is a neighbour message, which the forwarding databases use as well.
type ndMsg struct {
	family uint8
	index  int
	state  uint16
	flags  uint32 // NTF_* and NTF_EXT_* << 8

	dst      netip.Addr
	mac      []byte // aliases what was decoded
	protocol uint8
	vlan     uint16
	port     uint16
	vni      uint32
	srcVNI   uint32
	via      int
	nextHop  uint32
	master   int
	probes   uint32

	confirmed, used, updated time.Duration
	timed                    bool // it has these
}

// request builds a message from what is not zero.
func (m *ndMsg) request(typ, flags uint16) nl.Request {
	b := append(make([]byte, 0, 96), m.family, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(m.index))
	b = binary.NativeEndian.AppendUint16(b, m.state)
	b = append(b, uint8(m.flags), 0)
	if m.dst.IsValid() {
		b = appendIP(b, unix.NDA_DST, m.dst)
	}
	if m.mac != nil {
		b = nl.AppendAttr(b, unix.NDA_LLADDR, m.mac)
	}
	if m.vlan != 0 {
		b = nl.AppendU16(b, unix.NDA_VLAN, m.vlan)
	}
	if m.port != 0 {
		b = nl.AppendBE16(b, unix.NDA_PORT, m.port)
	}
	for _, a := range [...]struct {
		typ uint16
		v   uint32
	}{
		{unix.NDA_VNI, m.vni}, {unix.NDA_IFINDEX, uint32(m.via)}, {unix.NDA_MASTER, uint32(m.master)},
		{unix.NDA_SRC_VNI, m.srcVNI}, {ndaNextHop, m.nextHop}, {ndaFlagsExt, m.flags >> 8},
	} {
		if a.v != 0 {
			b = nl.AppendU32(b, a.typ, a.v)
		}
	}
	if m.protocol != 0 {
		b = nl.AppendU8(b, ndaProtocol, m.protocol)
	}
	return nl.Request{Type: typ, Flags: flags, Body: b, Names: neighNames}
}

// edit builds the message that edits what m is about.
func (m *ndMsg) edit(how edit) nl.Request {
	if how == editDelete {
		return m.request(unix.RTM_DELNEIGH, 0)
	}
	return m.request(unix.RTM_NEWNEIGH, uint16(how))
}

// decodeND reads the body of an RTM_NEWNEIGH or RTM_DELNEIGH message.
func decodeND(m *ndMsg, b []byte) error {
	if len(b) < sizeofNdMsg {
		return errShort
	}
	*m = ndMsg{
		family: b[0],
		index:  int(int32(binary.NativeEndian.Uint32(b[4:]))),
		state:  binary.NativeEndian.Uint16(b[8:]),
		flags:  uint32(b[10]),
	}
	w := nl.Walk(b[sizeofNdMsg:])
	for w.Next() {
		switch w.Type() {
		case unix.NDA_DST:
			m.dst = dstOf(m.family, w.Data())
		case unix.NDA_LLADDR:
			m.mac = w.Data()
		case unix.NDA_VLAN:
			m.vlan = w.U16()
		case unix.NDA_PORT:
			m.port = w.BE16()
		case unix.NDA_VNI:
			m.vni = w.U32()
		case unix.NDA_IFINDEX:
			m.via = int(int32(w.U32()))
		case unix.NDA_MASTER:
			m.master = int(int32(w.U32()))
		case unix.NDA_SRC_VNI:
			m.srcVNI = w.U32()
		case unix.NDA_PROBES:
			m.probes = w.U32()
		case ndaNextHop:
			m.nextHop = w.U32()
		case ndaProtocol:
			m.protocol = w.U8()
		case ndaFlagsExt:
			m.flags |= w.U32() << 8
		case unix.NDA_CACHEINFO: // struct nda_cacheinfo: confirmed, used, updated, references
			if c := w.Data(); len(c) >= 12 {
				m.timed = true
				m.confirmed = clockTicks(uint64(binary.NativeEndian.Uint32(c)))
				m.used = clockTicks(uint64(binary.NativeEndian.Uint32(c[4:])))
				m.updated = clockTicks(uint64(binary.NativeEndian.Uint32(c[8:])))
			}
		}
	}
	return w.Err()
}

// dstOf reads an address; in a forwarding database its length says which family.
func dstOf(family uint8, b []byte) netip.Addr {
	if family == unix.AF_BRIDGE {
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	return addrOf(family, b)
}

// clockTicks converts from the kernel's user-visible clock, USER_HZ, which is 100
// on every architecture that Go runs on.
func clockTicks(n uint64) time.Duration { return time.Duration(n) * ticks }
