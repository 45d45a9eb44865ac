package netns_test

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

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
		t.Errorf("a port nobody listens on: %v", err)
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
