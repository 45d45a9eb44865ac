package store

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// from is a connection from an address of the test's choice.
type from struct {
	net.Conn
	addr netip.Addr
}

func (f from) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.addr, 40000)) }

// The first connection is from an address that the host loses. A call and a Follow by it go on by another one.
func TestConnectionsFromAnAddressThatIsGoneAreMadeAnew(t *testing.T) {
	t.Parallel()
	before, after := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	var dials atomic.Int32
	s := openWith(t, Config{Fleet: fleetOf(t), Endpoints: shared.Endpoints(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		local := after
		if dials.Add(1) == 1 {
			local = before
		}
		return from{c, local}, err
	}})
	f := follow(t, s)
	f.next()
	s.Moved([]netip.Addr{before})
	cfg := state.DefaultConfig()
	_, err := s.EnsureConfig(t.Context(), cfg)
	must(t, err)
	if got := f.next(); got.Config == nil || dials.Load() != 1 {
		t.Fatalf("config %v after %d connections: the address is still there, and so is the connection", got.Config, dials.Load())
	}
	s.Moved([]netip.Addr{after})
	f.until("with an error", func(i item) bool { return i.err != nil })
	f.until("of a new connection", func(i item) bool { return i.err == nil && i.snapshot.Config != nil })
	_, err = s.EnsureConfig(t.Context(), cfg)
	must(t, err)
	if n := dials.Load(); n != 2 {
		t.Errorf("%d connections: want 2", n)
	}
	s.dialer.mu.Lock()
	defer s.dialer.mu.Unlock()
	if len(s.dialer.open) != 1 {
		t.Errorf("%d connections are open: want 1", len(s.dialer.open))
	}
}
