package nat

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A connection that was reset stays in connection tracking for a while. A box that opens another one of the
// same addresses and ports finds it there, and needs a grant that has not run out.
func TestAConnectionThatIsOverOpensNoOther(t *testing.T) {
	t.Parallel()
	s := wire(t)
	s.gw = open(t, s.host)
	if err := s.gw.AddNetwork(t.Context(), network0()); err != nil {
		t.Fatal(err)
	}
	setSysctl(t, s.host, "netfilter/nf_conntrack_tcp_timeout_close", "600")
	box := addrs("10.88.0.2")
	if err := s.gw.SetPolicies(t.Context(), Policy{Box: box, Owner: "web", Egress: &Rules{}, Refuse: true}); err != nil {
		t.Fatal(err)
	}
	ln, err := s.outside.Listen(t.Context(), "tcp", "203.0.113.9:90")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1)) // else the other end may not see that it is open
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	grant := func(lifetime time.Duration) {
		t.Helper()
		if err := s.gw.Grant(t.Context(), box[0], lifetime, allows(t, "tcp 203.0.113.9 port 90").Allow...); err != nil {
			t.Fatal(err)
		}
	}
	// connects opens a connection from a port and waits until the outside has reset it.
	connects := func(port uint16) error {
		t.Helper()
		dialer := net.Dialer{
			LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(box[0], port)),
			// A program that another test is starting has the last connection's socket until its execve.
			Control: func(_, _ string, c syscall.RawConn) error {
				var failed error
				err := c.Control(func(fd uintptr) {
					failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
				})
				return errors.Join(err, failed)
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c, err := s.box.DialWith(ctx, dialer, "tcp", "203.0.113.9:90")
		if err != nil {
			return err
		}
		c.Write([]byte("?"))
		c.Read(make([]byte, 1))
		c.Close()
		return nil
	}
	grant(2 * time.Second)
	if err := connects(5000); err != nil {
		t.Fatalf("the grant opens nothing: %v", err)
	}
	if !until(func() bool { return len(elements(t, s.host, "grant4")) == 0 }) {
		t.Fatal("the grant stays")
	}
	flows, err := s.gw.ListFlows(t.Context(), box[0])
	if err != nil || len(flows) != 1 || flows[0].State != "CLOSE" {
		t.Fatalf("connection tracking has %v, %v, want one connection that is over", flows, err)
	}
	if err := connects(5000); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a connection beside one of the time of the grant ends with %v", err)
	}
	if err := connects(5001); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a connection without a grant ends with %v", err)
	}
	grant(time.Hour)
	for i, port := range []uint16{5000, 5001, 5000} {
		if err := connects(port); err != nil {
			t.Errorf("with a grant, connection %d, from port %d: %v", i, port, err)
		}
	}
}
