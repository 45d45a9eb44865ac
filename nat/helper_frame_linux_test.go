package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// wireEnd is an end of a wire that raw frames are sent from, whatever the stack
// of its namespace thinks of them.
type wireEnd struct {
	fd, index int
	from      net.HardwareAddr
}

func newWireEnd(t *testing.T, ns *netns.NS, dev string) wireEnd {
	t.Helper()
	e, err := netns.Do(t.Context(), ns, func(context.Context) (wireEnd, error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return wireEnd{}, err
		}
		l, err := net.InterfaceByName(dev)
		if err != nil {
			unix.Close(fd)
			return wireEnd{}, err
		}
		return wireEnd{fd, l.Index, l.HardwareAddr}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(e.fd) })
	return e
}

// macOf is the address of a link.
func macOf(t *testing.T, ns *netns.NS, dev string) net.HardwareAddr {
	t.Helper()
	l, err := netns.Do(t.Context(), ns, func(context.Context) (*net.Interface, error) { return net.InterfaceByName(dev) })
	if err != nil {
		t.Fatal(err)
	}
	return l.HardwareAddr
}

// send sends a datagram in a frame to the link with the address to.
func (e wireEnd) send(t *testing.T, to net.HardwareAddr, src, dst netip.AddrPort, text string) {
	t.Helper()
	e.sendFrame(t, to, datagram(src, dst, text))
}

// sendFrame sends a frame of the type and content in rest.
func (e wireEnd) sendFrame(t *testing.T, to net.HardwareAddr, rest []byte) {
	t.Helper()
	frame := slices.Concat(to, e.from, rest)
	err := unix.Sendto(e.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: e.index, Halen: 6})
	if err != nil && err != unix.ENOBUFS { // a full queue: the frame is lost, as any may be
		t.Fatal(err)
	}
}

// datagram is a frame's type and the packet, with UDP (RFC 768) inside.
func datagram(src, dst netip.AddrPort, text string) []byte {
	n := 8 + len(text)
	udp := binary.BigEndian.AppendUint16(nil, src.Port())
	udp = binary.BigEndian.AppendUint16(udp, dst.Port())
	udp = binary.BigEndian.AppendUint16(udp, uint16(n))
	udp = append(append(udp, 0, 0), text...)
	return ipPacket(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, 64, udp, 6)
}

// pseudo is what the checksum of a packet's payload is over: addresses, protocol
// and length stand before it.
func pseudo(addrs []byte, proto byte, payload []byte) []byte {
	return slices.Concat(addrs, []byte{0, proto, byte(len(payload) >> 8), byte(len(payload))}, payload)
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i, x := range b {
		sum += uint32(x) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// receiver hears what datagrams arrive at a port.
type receiver struct {
	mu    sync.Mutex          // guards heard
	heard map[string]struct{} // their texts
}

// listen hears what arrives and answers nothing.
func listen(t *testing.T, ns *netns.NS, addr string) *receiver {
	return newReceiver(t, ns, addr, false)
}

// listenAndAnswer answers what arrives, which makes connections of it.
func listenAndAnswer(t *testing.T, ns *netns.NS, addr string) *receiver {
	return newReceiver(t, ns, addr, true)
}

func newReceiver(t *testing.T, ns *netns.NS, addr string, answer bool) *receiver {
	t.Helper()
	c, err := ns.ListenPacket(t.Context(), "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	e := &receiver{heard: map[string]struct{}{}}
	go func() {
		buf := make([]byte, 256)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // a refusal of an answer
			}
			if answer {
				c.WriteTo(buf[:n], from)
			}
			e.mu.Lock()
			e.heard[string(buf[:n])] = struct{}{}
			e.mu.Unlock()
		}
	}()
	return e
}

func (e *receiver) has(text string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.heard[text]
	return ok
}

// until calls fn, in short intervals, until it returns true; false means that it
// did not in ten seconds.
func until(fn func() bool) bool {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if fn() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

func TestFramesAreWhatTheKernelTakes(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := wire(t)
	e, to := newWireEnd(t, s.outside, "wan0"), macOf(t, s.host, "up0")
	host := listen(t, s.host, ":7777")
	for _, c := range [][2]string{{"203.0.113.9:1", "203.0.113.1:7777"}, {"[2001:db8:1::9]:1", "[2001:db8:1::1]:7777"}} {
		if !until(func() bool {
			e.send(t, to, ap(c[0]), ap(c[1]), c[1])
			return host.has(c[1])
		}) {
			t.Errorf("%s does not arrive", c[1])
			t.Log(testutil.Run(t, s.host, "cat", "/proc/net/snmp", "/proc/net/snmp6"))
		}
	}
}
