package nat

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// If the host's link loses its address, and gets it again, the kernel has forgotten what was masqueraded to it: what
// comes from outside next is for the host, which resets the connection. With a fixed address
// the connection goes on.
func TestConnectionWhileTheHostLosesItsAddress(t *testing.T) {
	t.Parallel()
	s := wire(t)
	s.gw = open(t, s.host)
	other := network1()
	other.Masquerade, other.SNAT = false, addrs("203.0.113.1")
	for _, n := range []Network{network0(), other} {
		if err := s.gw.AddNetwork(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	s.waitReady(t)
	ln, err := s.outside.Listen(t.Context(), "tcp4", "203.0.113.9:7")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	connect := func(from *netns.NS) (inside, outside net.Conn) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		inside, err := from.Dial(ctx, "tcp", "203.0.113.9:7")
		if err == nil {
			outside, err = ln.Accept()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { inside.Close(); outside.Close() })
		for _, c := range []net.Conn{inside, outside} {
			c.SetDeadline(time.Now().Add(time.Minute))
		}
		return inside, outside
	}
	_, masqueradedEnd := connect(s.box)
	fixed, fixedEnd := connect(s.other)
	ip(t, s.host, `
		addr del 203.0.113.1/24 dev up0
		addr add 203.0.113.1/24 dev up0`)
	if !until(func() bool { // the kernel does it in the background
		flows, ferr := s.gw.ListFlows(t.Context(), netip.MustParseAddr("10.88.0.2"))
		err = ferr
		for _, f := range flows {
			if f.Original.Dst.Port() == 7 {
				return false
			}
		}
		return err == nil
	}) {
		t.Fatalf("the kernel keeps the flow: %v", err)
	}
	buf := make([]byte, 8)
	for _, c := range []net.Conn{fixedEnd, masqueradedEnd} {
		if _, err := c.Write([]byte("to a box")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.ReadFull(fixed, buf); err != nil {
		t.Errorf("a box with a fixed address reads %q: %v", buf, err)
	}
	if _, err := masqueradedEnd.Read(buf); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the other end of a masqueraded connection reads: %v, want a reset", err)
	}
}
