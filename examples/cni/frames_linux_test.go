package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// experimental is an EtherType that no protocol has (IEEE 802, local experiments).
const experimental = 0x88b5

// packetSocket opens a packet socket on a link.
func packetSocket(t testing.TB, ns *netns.NS, name string) int {
	t.Helper()
	l, err := link.Get(t.Context(), ns, name)
	if err != nil {
		t.Fatal(err)
	}
	proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, experimental))
	fd, err := netns.Do(t.Context(), ns, func(context.Context) (int, error) {
		return unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: l.Index})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// frame is a broadcast frame with a source, in a VLAN if the id is not 0.
func frame(src net.HardwareAddr, vlan uint16, text string) []byte {
	b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, src...)
	if vlan != 0 {
		b = binary.BigEndian.AppendUint16(b, unix.ETH_P_8021Q)
		b = binary.BigEndian.AppendUint16(b, vlan)
	}
	b = binary.BigEndian.AppendUint16(b, experimental)
	return append(b, text...)
}

// passes says whether a frame that one container sends arrives at another. A veth
// pair and a bridge hand it on within the call that sends it; the wait is for
// a kernel that is busy. It is for frames that should not arrive.
func passes(t testing.TB, from, to *netns.NS, f []byte) bool {
	t.Helper()
	return within(t, 200*time.Millisecond, from, to, f)
}

// arrives is passes for frames that should.
func arrives(t testing.TB, from, to *netns.NS, f []byte) bool {
	t.Helper()
	return within(t, 10*time.Second, from, to, f)
}

func within(t testing.TB, most time.Duration, from, to *netns.NS, f []byte) bool {
	t.Helper()
	out, in := packetSocket(t, from, "eth0"), packetSocket(t, to, "eth0")
	defer unix.Close(out)
	defer unix.Close(in)
	if _, err := unix.Write(out, f); err != nil {
		t.Fatal(err)
	}
	wait := unix.NsecToTimeval(int64(most))
	if err := unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	n, err := unix.Read(in, b)
	for err == unix.EINTR { // the runtime's own signals
		n, err = unix.Read(in, b)
	}
	if err == unix.EAGAIN {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b[:n], f[len(f)-4:]) {
		t.Errorf("another frame has come: %x", b[:n])
	}
	return true
}

// macOf is the hardware address of a container's link.
func macOf(t testing.TB, ns *netns.NS) net.HardwareAddr {
	t.Helper()
	l, err := link.Get(t.Context(), ns, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	return l.MAC
}
