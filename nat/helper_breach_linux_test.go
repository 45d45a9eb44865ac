package nat

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// bare is a frame's type and a packet with a payload as it is.
func bare(proto byte, src, dst string, payload []byte) []byte {
	room := ipPacket(netip.MustParseAddr(src), netip.MustParseAddr(dst), proto, 64, append(make([]byte, 2), payload...), 0)
	n := len(room) - len(payload) - 2
	f := append(room[:n:n], payload...)
	return relength(f)
}

// relength puts the right lengths and IPv4 checksum into a frame that was put together.
func relength(f []byte) []byte {
	ip := f[2:]
	if ip[0]>>4 == 4 {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		head := ip[:int(ip[0]&15)*4]
		head[10], head[11] = 0, 0
		binary.BigEndian.PutUint16(head[10:], checksum(head))
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	}
	return f
}

// extended puts extension headers before the payload of an IPv6 packet: the first one's number, and
// the headers, each of which has the number of what follows in its first byte.
func extended(frame []byte, headers ...[]byte) []byte {
	next := frame[2+6]
	f := slices.Clone(frame[:42])
	f[2+6] = headers[0][0]
	for i, h := range headers {
		h = slices.Clone(h)
		if i+1 < len(headers) {
			h[0] = headers[i+1][0]
		} else {
			h[0] = next
		}
		f = append(f, h...)
	}
	return relength(append(f, frame[42:]...))
}

// Extension headers (RFC 8200) with their own numbers in the first byte.
var (
	hopByHop    = []byte{0, 0, 1, 4, 0, 0, 0, 0}
	destOptions = []byte{60, 0, 1, 4, 0, 0, 0, 0}
	routing     = []byte{43, 0, 4, 0, 0, 0, 0, 0} // none left
	atomicFrag  = []byte{44, 0, 0, 0, 0, 0, 0, 1}
)

// cutUp cuts the payload of a packet at a multiple of 8 bytes.
func cutUp(frame []byte, at int, id uint16) [][]byte {
	if frame[2]>>4 == 4 {
		payload := frame[22:]
		one, two := slices.Concat(frame[:22], payload[:at]), slices.Concat(frame[:22], payload[at:])
		for _, f := range [][]byte{one, two} {
			binary.BigEndian.PutUint16(f[2+4:], id)
		}
		binary.BigEndian.PutUint16(one[2+6:], 1<<13) // more follow
		binary.BigEndian.PutUint16(two[2+6:], uint16(at/8))
		return [][]byte{relength(one), relength(two)}
	}
	header := func(offset uint16, more byte) []byte {
		h := []byte{frame[2+6], 0, 0, 0, 0, 0, byte(id >> 8), byte(id)}
		binary.BigEndian.PutUint16(h[2:], offset|uint16(more))
		return h
	}
	payload, head := frame[42:], slices.Clone(frame[:42])
	head[2+6] = 44
	one := slices.Concat(head, header(0, 1), payload[:at])
	two := slices.Concat(head, header(uint16(at), 0), payload[at:])
	return [][]byte{relength(one), relength(two)}
}

// sctpInit is a chunk that opens an association (RFC 9260), with the text behind it.
func sctpInit(src, dst netip.AddrPort, text string) []byte {
	p := binary.BigEndian.AppendUint16(nil, src.Port())
	p = binary.BigEndian.AppendUint16(p, dst.Port())
	p = append(p, make([]byte, 8)...)
	p = append(p, 1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1)
	for len(text)%4 != 0 {
		text += "."
	}
	p = append(p, 64, 0, byte((len(text)+4)>>8), byte(len(text)+4)) // a chunk that is skipped
	p = append(p, text...)
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return bare(unix.IPPROTO_SCTP, src.Addr().String(), dst.Addr().String(), p)
}

// forged is an ICMP error about a datagram.
func forged(src, dst string, about []byte) []byte {
	from, to := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	proto, typ, code := byte(unix.IPPROTO_ICMP), byte(3), byte(3)
	if from.Is6() {
		proto, typ, code = unix.IPPROTO_ICMPV6, 1, 4
	}
	return ipPacket(from, to, proto, 64, slices.Concat([]byte{typ, code, 0, 0, 0, 0, 0, 0}, about[2:]), 2)
}
