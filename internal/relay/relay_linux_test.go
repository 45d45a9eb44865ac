package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/sockfilter"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func dialer(ns *netns.NS, network, addr string) Dial {
	return func(ctx context.Context) (net.Conn, error) { return ns.Dial(ctx, network, addr) }
}

// echoTCP answers each connection with what it has sent, after its end.
func echoTCP(t *testing.T, ns *netns.NS) string {
	t.Helper()
	ln, err := ns.Listen(t.Context(), "tcp4", "127.0.0.1:0")
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
			b, _ := io.ReadAll(c)
			c.Write(b)
			c.Close()
		}
	}()
	return ln.Addr().String()
}

func exchange(t *testing.T, c net.Conn) (string, error) {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write([]byte("hello"))
	c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestTCP(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	ln, err := ns.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := TCP(t.Context(), ln, dialer(ns, "tcp", echoTCP(t, ns)))
	c, err := ns.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := exchange(t, c); err != nil || got != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	open, err := ns.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	r.Close()
	r.Close()
	open.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a connection is open after Close: %v", err)
	}
}

func TestTCPResetsTheClientOfNoTarget(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	ln, err := ns.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer TCP(t.Context(), ln, dialer(ns, "tcp", "127.0.0.1:1")).Close()
	c, err := ns.Dial(t.Context(), "tcp", ln.Addr().String())
	if err == nil { // a write might take the error
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client gets %v", err)
	}
}

// The answer comes from the address that the client has sent to.
func TestUDPAnswersFromTheAddressAsked(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	target, err := ns.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := target.ReadFrom(b)
			if err != nil {
				return
			}
			target.WriteTo(b[:n], from)
		}
	}()
	pc, err := ns.ListenPacket(t.Context(), "udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	r, err := UDP(t.Context(), pc.(*net.UDPConn), false, dialer(ns, "udp", target.LocalAddr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	port := uint16(pc.LocalAddr().(*net.UDPAddr).Port)
	for _, a := range []string{"127.0.0.1", "127.0.0.2"} {
		c, err := ns.Dial(t.Context(), "udp", netip.AddrPortFrom(netip.MustParseAddr(a), port).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() // it receives from that address only
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write([]byte("hello"))
		b := make([]byte, 100)
		if n, err := c.Read(b); err != nil || string(b[:n]) != "hello" {
			t.Errorf("%s: %q, %v", a, b[:n], err)
		}
	}
}

// A socket that receives nothing lets clients of one address in while it is shared.
func TestListenOnASilentSocket(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	fd, err := netns.Do(t.Context(), ns, func(context.Context) (int, error) {
		return unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const port, mark = 8080, 7
	if err := errors.Join(sockfilter.Nothing(fd), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark),
		unix.Bind(fd, &unix.SockaddrInet6{Port: port}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(fd, netip.IPv6Loopback(), mark)
	if err != nil {
		t.Fatal(err)
	}
	r := TCP(t.Context(), ln, dialer(ns, "tcp", echoTCP(t, ns)))
	c, err := ns.Dial(t.Context(), "tcp", "[::1]:8080")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := exchange(t, c); err != nil || got != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	silent := func(addr string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if c, err := ns.Dial(ctx, "tcp", addr); err == nil {
			c.Close()
			t.Errorf("%s answers", addr)
		}
	}
	silent("127.0.0.1:8080")
	r.Close()
	silent("[::1]:8080")
	if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK); err != nil || got != mark {
		t.Errorf("the mark is %d, %v", got, err)
	}
}
