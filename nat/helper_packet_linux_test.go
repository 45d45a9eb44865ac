package nat

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Flags of a TCP segment (RFC 9293).
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagACK = 0x10
)

// segment is a TCP segment.
type segment struct {
	src, dst netip.AddrPort
	seq, ack uint32
	flags    byte
	text     string
}

// packet is a frame's type and the packet of the segment.
func (s segment) packet() []byte {
	tcp := binary.BigEndian.AppendUint16(nil, s.src.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, s.dst.Port())
	tcp = binary.BigEndian.AppendUint32(tcp, s.seq)
	tcp = binary.BigEndian.AppendUint32(tcp, s.ack)
	tcp = append(tcp, 5<<4, s.flags, 0xff, 0xff, 0, 0, 0, 0)
	tcp = append(tcp, s.text...)
	return ipPacket(s.src.Addr(), s.dst.Addr(), unix.IPPROTO_TCP, 64, tcp, 16)
}

// ipPacket is a frame's type and the packet: IPv4 (RFC 791) or IPv6 (RFC 8200) with
// a payload that has its checksum at an offset.
func ipPacket(src, dst netip.Addr, proto, hops byte, payload []byte, sum int) []byte {
	addrs := slices.Concat(src.AsSlice(), dst.AsSlice())
	over := payload
	if proto != unix.IPPROTO_ICMP { // whose checksum is of itself alone
		over = pseudo(addrs, proto, payload)
	}
	binary.BigEndian.PutUint16(payload[sum:], checksum(over))
	if src.Is4() {
		head := append([]byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, hops, proto, 0, 0}, addrs...)
		binary.BigEndian.PutUint16(head[10:], checksum(head))
		return slices.Concat([]byte{0x08, 0x00}, head, payload)
	}
	head := append([]byte{0x60, 0, 0, 0, 0, byte(len(payload)), proto, hops}, addrs...)
	return slices.Concat([]byte{0x86, 0xdd}, head, payload)
}

// shot is a packet with a text, of TCP one that would open a connection.
func shot(proto Proto, src, dst netip.AddrPort, text string) []byte {
	if proto == TCP {
		return segment{src: src, dst: dst, seq: 1, flags: flagSYN, text: text}.packet()
	}
	return datagram(src, dst, text)
}

// parsed is what a frame holds.
type parsed struct {
	proto    byte
	src, dst netip.AddrPort // without ports for what is neither TCP nor UDP
	seq, ack uint32         // of TCP
	payload  []byte
}

// parse reads a frame; ok is false for what is no whole IP packet.
func parse(frame []byte) (p parsed, ok bool) {
	if len(frame) < 14+20 {
		return p, false
	}
	ip, rest := frame[14:], []byte(nil)
	var src, dst netip.Addr
	switch {
	case frame[12] == 0x08 && frame[13] == 0x00:
		p.proto, rest = ip[9], ip[20:]
		if n := int(binary.BigEndian.Uint16(ip[2:])); 20 <= n && n <= len(ip) {
			rest = ip[20:n]
		}
		src, _ = netip.AddrFromSlice(ip[12:16])
		dst, _ = netip.AddrFromSlice(ip[16:20])
	case frame[12] == 0x86 && frame[13] == 0xdd && len(ip) >= 40:
		p.proto, rest = ip[6], ip[40:]
		src, _ = netip.AddrFromSlice(ip[8:24])
		dst, _ = netip.AddrFromSlice(ip[24:40])
	default:
		return p, false
	}
	p.src, p.dst, p.payload = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0), rest
	skip := map[byte]int{unix.IPPROTO_TCP: 20, unix.IPPROTO_UDP: 8}[p.proto]
	if skip == 0 {
		return p, true
	}
	if len(rest) < skip {
		return p, false
	}
	p.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(rest))
	p.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(rest[2:]))
	if p.proto == unix.IPPROTO_TCP {
		p.seq, p.ack = binary.BigEndian.Uint32(rest[4:]), binary.BigEndian.Uint32(rest[8:])
		skip = min(int(rest[12]>>4)*4, len(rest))
	}
	p.payload = rest[skip:]
	return p, true
}

// watchFrames calls each with the packets that pass a link of ns, those that it
// sends if sent says so, and else those that it receives, until the test ends.
func watchFrames(t *testing.T, ns *netns.NS, dev string, sent bool, each func(parsed)) {
	t.Helper()
	fd, err := netns.Do(t.Context(), ns, func(context.Context) (int, error) {
		l, err := net.InterfaceByName(dev)
		if err != nil {
			return 0, err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000})
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: l.Index}) // ETH_P_ALL
		}
		if err != nil {
			unix.Close(fd)
		}
		return fd, err
	})
	if err != nil {
		t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(done); <-ended; unix.Close(fd) })
	go func() {
		defer close(ended)
		buf := make([]byte, 2048)
		for {
			select {
			case <-done:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				continue // the timeout
			}
			ll, ok := from.(*unix.SockaddrLinklayer)
			if !ok || sent != (ll.Pkttype == unix.PACKET_OUTGOING) || !sent && ll.Pkttype != unix.PACKET_HOST {
				continue
			}
			if p, ok := parse(buf[:n]); ok {
				each(p)
			}
		}
	}()
}

// capture hears what packets for ns arrive at a link.
func capture(t *testing.T, ns *netns.NS, dev string) *receiver {
	t.Helper()
	e := &receiver{heard: map[string]struct{}{}}
	watchFrames(t, ns, dev, false, func(p parsed) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.heard[string(p.payload)] = struct{}{}
	})
	return e
}

// mute has ns answer nothing of TCP and UDP, and the rest as ever.
func mute(t *testing.T, ns *netns.NS) {
	t.Helper()
	testutil.Run(t, ns, "nft", "add table inet mute; add chain inet mute in { type filter hook input priority 0; }; add rule inet mute in meta l4proto { tcp, udp } drop")
}
