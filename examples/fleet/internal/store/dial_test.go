package store

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestConnectionsFromAddressesThatAreGoneAreClosed(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	from := "127.0.0.1"
	d := newDialer(Config{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		return dialer.DialContext(ctx, network, address)
	}})
	var conns []net.Conn
	for _, from = range []string{"127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.3"} {
		c, err := d.context(t.Context(), ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	conns[2].Close()
	d.closeFrom(func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.2") })
	for i, closed := range []bool{false, true, true, false} {
		if err := conns[i].SetDeadline(time.Now()); errors.Is(err, net.ErrClosed) != closed {
			t.Errorf("connection %d: %v, want closed: %v", i, err, closed)
		}
	}
	if _, err := d.context(t.Context(), ln.Addr().String()); err != nil || len(d.open) != 3 {
		t.Errorf("%d connections are remembered (%v), want the 3 that are open", len(d.open), err)
	}
	d.closeFrom(func(a netip.Addr) bool { return true })
	if len(d.open) != 0 {
		t.Errorf("%d connections are remembered, and none is open", len(d.open))
	}
}
