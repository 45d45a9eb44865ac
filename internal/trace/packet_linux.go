package trace

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Packet is the first packet of a connection. What is not known is left zero, but
// for the protocol and the port that it is for. An address that is not known is a
// stranger's.
type Packet struct {
	V6           bool
	In, Out      Link
	Src, Dst     netip.Addr
	Proto        uint8
	Sport, Dport uint16
	Local        bool // it is for the namespace itself
	Translated   bool // its destination was translated
	Returns      bool // the route to its source leads out of In
}

// Link is the link that a packet comes in or goes out by.
type Link struct {
	Index int
	Name  string
}

// bytes are bytes of which some are not known.
type bytes struct {
	data  []byte
	known []bool
}

func unknown(n int) bytes { return bytes{make([]byte, n), make([]bool, n)} }

func known(data []byte) bytes {
	b := bytes{data, make([]bool, len(data))}
	for i := range b.known {
		b.known[i] = true
	}
	return b
}

// set makes the bytes from offset on known.
func (b bytes) set(offset int, data ...byte) {
	copy(b.data[offset:], data)
	for i := range data {
		b.known[offset+i] = true
	}
}

// all reports whether every byte is known.
func (b bytes) all() bool {
	for _, k := range b.known {
		if !k {
			return false
		}
	}
	return true
}

// part returns n bytes from offset on; beyond the end they are not known.
func (b bytes) part(offset, n int) bytes {
	p := unknown(n)
	for i := range n {
		if at := offset + i; at >= 0 && at < len(b.data) {
			p.data[i], p.known[i] = b.data[at], b.known[at]
		}
	}
	return p
}

// network is the packet's IP header.
func (p *Packet) network() bytes {
	b, src, dst := unknown(20), 12, 16
	if p.V6 {
		b, src, dst = unknown(40), 8, 24
		b.set(6, p.Proto)
	} else {
		b.set(0, 0x45)
		b.set(9, p.Proto)
	}
	if p.Src.IsValid() {
		b.set(src, p.Src.AsSlice()...)
	}
	if p.Dst.IsValid() {
		b.set(dst, p.Dst.AsSlice()...)
	}
	return b
}

// transport is the packet's TCP, UDP or SCTP header; of TCP it is a SYN.
func (p *Packet) transport() bytes {
	b := unknown(20)
	if p.Sport != 0 {
		b.set(0, binary.BigEndian.AppendUint16(nil, p.Sport)...)
	}
	b.set(2, binary.BigEndian.AppendUint16(nil, p.Dport)...)
	if p.Proto == unix.IPPROTO_TCP {
		b.set(13, 0x02)
	}
	return b
}

// meta is what a meta expression loads.
func (p *Packet) meta(key uint32) bytes {
	switch key {
	case unix.NFT_META_NFPROTO:
		if p.V6 {
			return known([]byte{unix.NFPROTO_IPV6})
		}
		return known([]byte{unix.NFPROTO_IPV4})
	case unix.NFT_META_L4PROTO:
		return known([]byte{p.Proto})
	case unix.NFT_META_PROTOCOL:
		if p.V6 {
			return known([]byte{0x86, 0xdd})
		}
		return known([]byte{0x08, 0x00})
	case unix.NFT_META_IIF:
		return p.In.index()
	case unix.NFT_META_OIF:
		return p.Out.index()
	case unix.NFT_META_IIFNAME:
		return p.In.name()
	case unix.NFT_META_OIFNAME:
		return p.Out.name()
	}
	return unknown(16)
}

func (l Link) index() bytes {
	if l.Index == 0 {
		return unknown(4)
	}
	return known(binary.NativeEndian.AppendUint32(nil, uint32(l.Index)))
}

func (l Link) name() bytes {
	if l.Name == "" {
		return unknown(unix.IFNAMSIZ)
	}
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, l.Name)
	return known(b)
}

// Bits of ct state and ct status (linux/netfilter/nf_conntrack_common.h).
const (
	stateNew   = 1 << 3
	statusDNAT = 1<<5 | 1<<8 // and that it was decided
)

// ct is what a ct expression loads.
func (p *Packet) ct(key uint32) bytes {
	switch key {
	case unix.NFT_CT_STATE:
		return known(binary.NativeEndian.AppendUint32(nil, stateNew))
	case unix.NFT_CT_STATUS:
		v := uint32(0)
		if p.Translated {
			v = statusDNAT
		}
		return known(binary.NativeEndian.AppendUint32(nil, v))
	}
	return unknown(16)
}
