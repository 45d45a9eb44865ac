//go:build linux

package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// watch counts the packets with a marker at two places of a host: where the tunnel link hands packets in and out, and where links
// of the underlay do. A packet socket sees them before the firewall when they come in, and after it when they leave (packet(7)), so
// what is seen at one place and not at the next one was dropped between the two.
//
// The kernel keeps the packets in the socket's buffer. A filter lets only those with the marker in, so that a busy host pays for
// no others.
type watch struct {
	file   *os.File
	tunnel int // index of the tunnel link, 0 without one
	port   uint16
	marker marker
	total  counts

	// WireGuard hides the marker. Small packets from and to this address and the tunnel's port count instead.
	hidden netip.Addr
}

// openWatch opens the socket. hidden is the zero Addr unless the tunnel encrypts.
func openWatch(ctx context.Context, ns *netns.NS, tunnel int, port uint16, m marker, hidden netip.Addr) (*watch, error) {
	file, err := ns.Socket(ctx, unix.AF_PACKET, unix.SOCK_DGRAM, 0) // protocol 0: nothing arrives before the filter is there
	if err != nil {
		return nil, fmt.Errorf("count packets: %w", err)
	}
	w := &watch{file: file, tunnel: tunnel, port: port, marker: m, hidden: hidden}
	if err := w.start(); err != nil {
		file.Close()
		return nil, fmt.Errorf("count packets in %v: %w", ns, err)
	}
	return w, nil
}

func (w *watch) start() error {
	raw, err := bpf.Assemble(w.filter())
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	c, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = c.Control(func(fd uintptr) {
		prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if serr = os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)); serr != nil {
			return
		}
		if serr = os.NewSyscallError("setsockopt PACKET_AUXDATA", unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)); serr != nil {
			return
		}
		serr = os.NewSyscallError("bind", unix.Bind(int(fd), &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}))
	})
	return errors.Join(err, serr)
}

// markerAt are the places where a marker can be, ascending: in an echo request or a message over IPv4 and IPv6, by itself, and in
// a UDP tunnel (header of 8 bytes, then VXLAN's of 8) over IPv4 and IPv6.
var markerAt = []uint32{28, 36, 48, 56, 28 + 36, 36 + 36, 48 + 36, 56 + 36, 48 + 56, 56 + 56}

// filter accepts a packet if the first four bytes of the marker are at one of the places. A load beyond the packet's end ends the
// program and refuses the packet.
func (w *watch) filter() []bpf.Instruction {
	var prog []bpf.Instruction
	if w.hidden.IsValid() {
		// UDP to the tunnel's port, and small. The rest of the program would refuse what is too short for its loads.
		prog = append(prog,
			bpf.LoadExtension{Num: bpf.ExtLen}, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 256, SkipTrue: 12},
			bpf.LoadAbsolute{Off: 0, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0x40, SkipFalse: 4},
			bpf.LoadAbsolute{Off: 9, Size: 1}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipFalse: 7},
			bpf.LoadAbsolute{Off: 22, Size: 2}, bpf.Jump{Skip: 3},
			bpf.LoadAbsolute{Off: 6, Size: 1}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipFalse: 3},
			bpf.LoadAbsolute{Off: 42, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(w.port), SkipTrue: 1}, bpf.RetConstant{Val: 1 << 16},
		)
	}
	first := binary.BigEndian.Uint32(w.marker[:4])
	for i, at := range markerAt {
		prog = append(prog, bpf.LoadAbsolute{Off: at, Size: 4}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: first, SkipTrue: uint8(2*(len(markerAt)-i-1) + 1)})
	}
	return append(prog, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: 1 << 16})
}

// counts returns what was counted since the watch was opened.
func (w *watch) counts() (counts, error) {
	c, err := w.file.SyscallConn()
	if err != nil {
		return counts{}, err
	}
	buf, oob := make([]byte, 1024), make([]byte, 256)
	var rerr error
	err = c.Control(func(fd uintptr) {
		for {
			size, oobn, _, from, err := unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
				continue // a link went down, which the socket reports once
			}
			if err != nil {
				if !errors.Is(err, unix.EAGAIN) {
					rerr = os.NewSyscallError("recvmsg", err)
				}
				return
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok {
				w.count(buf[:size], ll.Ifindex, ll.Pkttype == unix.PACKET_OUTGOING, checksumDone(oob[:oobn]))
			}
		}
	})
	return w.total, errors.Join(err, rerr)
}

// checksumDone reports whether the packet's checksum is in it: a packet that has not left the machine may still lack it.
func checksumDone(oob []byte) bool {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 4 {
			return binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY == 0
		}
	}
	return false
}

// count adds one packet.
func (w *watch) count(b []byte, link int, out, done bool) {
	p, ok := w.classify(b)
	if !ok {
		return
	}
	for _, k := range p.kinds {
		at := &w.total[k]
		onTunnel := link == w.tunnel && link != 0
		switch {
		case onTunnel && out:
			at.LinkOut++
		case onTunnel:
			at.LinkIn++
		case out:
			at.WireOut++
		default:
			at.WireIn++
			if p.zero {
				at.Zero++
			}
			if p.bad && done {
				at.Bad++
			}
		}
	}
}

// found is a packet with the marker.
type found struct {
	kinds []int // which of counts it belongs to; a hidden one belongs to each
	bad   bool  // a UDP checksum is wrong: the tunnel's, or the inner packet's
	zero  bool  // the tunnel's header is IPv6 and has no UDP checksum
}

// classify looks for the marker in a packet that begins with an IP header.
func (w *watch) classify(b []byte) (found, bool) {
	proto, payload, bad, ok := ipPayload(b)
	if !ok {
		return found{}, false
	}
	if proto == unix.IPPROTO_UDP && len(payload) >= 8 && binary.BigEndian.Uint16(payload[2:]) == w.port {
		if w.hidden.IsValid() {
			src, dst := ipAddrs(b)
			return found{kinds: []int{byICMP, byUDP}, bad: bad}, src == w.hidden || dst == w.hidden
		}
		if len(payload) < 16 {
			return found{}, false
		}
		inner, ok := w.classifyInner(payload[16:])
		inner.bad, inner.zero = inner.bad || bad, b[0]>>4 == 6 && payload[6] == 0 && payload[7] == 0
		return inner, ok
	}
	return w.classifyInner(b)
}

func (w *watch) classifyInner(b []byte) (found, bool) {
	proto, payload, bad, ok := ipPayload(b)
	if !ok || len(payload) < 8 {
		return found{}, false
	}
	switch proto {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return found{kinds: []int{byICMP}}, bytes.HasPrefix(payload[8:], w.marker[:])
	case unix.IPPROTO_UDP:
		m, ok := decode(payload[8:])
		return found{kinds: []int{byUDP}, bad: bad}, ok && m.nonce == w.marker && m.kind&^reply == kindHello
	}
	return found{}, false
}

// ipPayload returns what follows the IP header of a whole packet, and whether a UDP checksum in it is wrong. No checksum is none
// that is wrong.
func ipPayload(b []byte) (proto uint8, payload []byte, bad, ok bool) {
	header, total := 0, 0
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header, total, proto = int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:])), b[9]
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return 0, nil, false, false // a fragment
		}
	case len(b) >= 40 && b[0]>>4 == 6:
		header, total, proto = 40, 40+int(binary.BigEndian.Uint16(b[4:])), b[6]
	}
	if header < 20 || total < header || total > len(b) {
		return 0, nil, false, false
	}
	payload = b[header:total]
	if proto == unix.IPPROTO_UDP && len(payload) >= 8 && (payload[6] != 0 || payload[7] != 0) {
		src, dst := ipAddrs(b)
		sum := uint32(unix.IPPROTO_UDP) + uint32(len(payload))
		sum = uint32(checksum(src.AsSlice(), sum))
		sum = uint32(checksum(dst.AsSlice(), sum))
		bad = checksum(payload, sum) != 0xffff
	}
	return proto, payload, bad, true
}

// ipAddrs are source and destination of a packet that ipPayload accepts.
func ipAddrs(b []byte) (src, dst netip.Addr) {
	if b[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	}
	return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)}) }
