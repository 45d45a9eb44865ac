package netns_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// serve answers every connection with a greeting.
func serve(t *testing.T, ns *netns.NS, network, address, greeting string) {
	t.Helper()
	ln, err := ns.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, greeting)
			c.Close()
		}
	}()
}

func greeting(t *testing.T, ns *netns.NS, network, address string) string {
	t.Helper()
	c, err := ns.Dial(t.Context(), network, address)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func TestSamePortInTwoNamespaces(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	a, b := netnstest.New(t), netnstest.New(t)
	serve(t, a, "tcp", "127.0.0.1:80", "a")
	serve(t, b, "tcp", ":80", "b")
	for _, tt := range []struct {
		ns                     *netns.NS
		network, address, want string
	}{
		{a, "tcp", "127.0.0.1:80", "a"},
		{b, "tcp", "127.0.0.1:80", "b"},
		{b, "tcp6", "[::1]:80", "b"},
		{a, "tcp", "localhost:80", "a"}, // ::1 is tried as well, and refuses
		{b, "tcp4", "localhost:80", "b"},
		{b, "tcp", "127.0.0.1:http", "b"},
	} {
		if got := greeting(t, tt.ns, tt.network, tt.address); got != tt.want {
			t.Errorf("%s %s answers %q, want %q", tt.network, tt.address, got, tt.want)
		}
	}
	if _, err := a.Dial(t.Context(), "tcp", "[::1]:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port without a listener: %v", err)
	}
	if _, err := a.Listen(t.Context(), "tcp", "127.0.0.1:80"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that is taken: %v", err)
	}
}

func TestAbstractUnixSocketsArePerNamespace(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	serve(t, a, "unix", "@boxwire-test", "a")
	if got := greeting(t, a, "unix", "@boxwire-test"); got != "a" {
		t.Errorf("got %q", got)
	}
	if _, err := b.Dial(t.Context(), "unix", "@boxwire-test"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("from the other namespace: %v", err)
	}
}

func TestListenPacket(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	pc, err := ns.ListenPacket(t.Context(), "udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	c, err := ns.Dial(t.Context(), "udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, from, err := pc.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "ping" || from.(*net.UDPAddr).String() != c.LocalAddr().String() {
		t.Errorf("%q from %v, %v", buf[:n], from, err)
	}
}

// Control runs on a thread that is in the namespace, before the socket is used.
func TestControlRunsInside(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	var calls int
	control := func(network, address string, c syscall.RawConn) error {
		calls++
		if at, err := inode(); err != nil || at != ns.ID().Ino {
			t.Errorf("Control for %s %s runs in %d (%v), want %d", network, address, at, err, ns.ID().Ino)
		}
		return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, 42) })
	}
	ln, err := ns.ListenWith(t.Context(), net.ListenConfig{Control: control}, "tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := net.Dialer{Control: control, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: time.Minute, KeepAlive: -1}
	c, err := ns.DialWith(t.Context(), d, "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.LocalAddr().(*net.TCPAddr).IP.String(); got != "127.0.0.9" {
		t.Errorf("the local address is %s", got)
	}
	raw, _ := c.(*net.TCPConn).SyscallConn()
	raw.Control(func(fd uintptr) {
		if mark, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK); err != nil || mark != 42 {
			t.Errorf("the mark is %d, %v", mark, err)
		}
	})
	pc, err := ns.ListenPacketWith(t.Context(), net.ListenConfig{Control: control}, "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc.Close()
	if calls < 3 {
		t.Errorf("Control was called %d times, want 3 at least", calls)
	}
	refused := errors.New("refused")
	d = net.Dialer{Control: func(string, string, syscall.RawConn) error { return refused }}
	if _, err := ns.DialWith(t.Context(), d, "tcp", ln.Addr().String()); !errors.Is(err, refused) {
		t.Errorf("Control refuses: %v", err)
	}
}

// A raw socket sees the echo request that another one sends, by the loopback link
// of the namespace.
func TestRawSockets(t *testing.T) {
	t.Parallel()
	ns, other := netnstest.New(t), netnstest.New(t)
	var conns []net.PacketConn
	for _, ns := range []*netns.NS{ns, other} {
		pc, err := ns.ListenPacket(t.Context(), "ip4:icmp", "localhost")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		conns = append(conns, pc)
	}
	c, err := ns.DialContext(t.Context(), "ip4:icmp", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Echo request, code, checksum, id, sequence (RFC 792).
	echo := []byte{8, 0, 0xf7 - 0x12, 0xff - 0x34, 0, 0, 0x12, 0x34}
	if _, err := c.Write(echo); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	conns[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	n, from, err := conns[0].ReadFrom(buf)
	if err != nil || !bytes.Equal(buf[:n], echo) || from.String() != "127.0.0.1" {
		t.Errorf("%x from %v, %v", buf[:n], from, err)
	}
	conns[1].SetReadDeadline(time.Unix(1, 0))
	if n, _, err := conns[1].ReadFrom(buf); err == nil {
		t.Errorf("the other namespace got %x", buf[:n])
	}
}

// A packet socket is used through an ordinary file, with deadlines.
func TestPacketSocket(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	f, err := ns.Socket(t.Context(), unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // network byte order
	var bindErr error
	raw.Control(func(fd uintptr) { bindErr = unix.Bind(int(fd), &unix.SockaddrLinklayer{Protocol: all, Ifindex: 1}) })
	if bindErr != nil {
		t.Fatal(bindErr)
	}
	c, err := ns.Dial(t.Context(), "udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("payload")); err != nil {
		t.Fatal(err)
	}
	f.SetReadDeadline(time.Now().Add(10 * time.Second))
	frame := make([]byte, 2048)
	n, err := f.Read(frame)
	if err != nil || !bytes.Contains(frame[:n], []byte("payload")) {
		t.Errorf("frame %x, %v", frame[:n], err)
	}
	f.SetReadDeadline(time.Unix(1, 0))
	for err == nil { // the frame comes in as well as it goes out
		_, err = f.Read(frame)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	if _, err := ns.Socket(t.Context(), 4711, unix.SOCK_RAW, 0); !errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Errorf("no such family: %v", err)
	}
}

func TestDialNetlinkSeesTheNamespace(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c, err := ns.DialNetlink(t.Context(), unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	links, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfInfomsg),
	})
	if err != nil || len(links) != 1 {
		t.Errorf("%d links (%v), want lo alone", len(links), err)
	}
	if _, err := ns.DialNetlink(t.Context(), unix.NETLINK_ROUTE, &netlink.Config{NetNS: 3}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a namespace in the configuration: %v", err)
	}
}
