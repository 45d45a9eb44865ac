package link

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// undoTopology is a namespace with things in it, and a box beside it.
type undoTopology struct {
	host, box         *netns.NS
	br, other         Link // bridges
	port, eth         Link // a port of br, and its other end in the box
	free, tunnel, ifb Link // no port, a VXLAN, an ifb that is up
}

// newUndoTopology makes one without IPv6 addresses of the kernel's own, which come and go
// with the carrier.
func newUndoTopology(t *testing.T) *undoTopology {
	t.Helper()
	y := &undoTopology{host: netnstest.New(t), box: netnstest.New(t)}
	quiet := IPv6Conf{AddrGenMode: new(AddrGenNone)}
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	y.br = mustCreate(t, y.host, Spec{Name: "br0", Up: true, MAC: mac(1), IPv6: quiet, Kind: Bridge{MulticastSnooping: new(false)}, Addrs: prefixes("10.0.0.1/24", "fd00::1/64")})
	y.other = mustCreate(t, y.host, Spec{Name: "br1", Up: true, MAC: mac(2), IPv6: quiet, Kind: Bridge{MulticastSnooping: new(false)}})
	var inHost, inBox int
	if !testutil.KernelAtLeast(5, 13) {
		inHost, inBox = 90, 91 // free in both, or they would not come back from there with them
	}
	y.port = mustCreate(t, y.host, Spec{
		Name: "web0", Index: inHost, Up: true, MAC: mac(3), Master: y.br.Ref(), IPv6: quiet, Alias: "web", AltNames: []string{"web-long"},
		Port: PortOptions{Hairpin: new(true), Cost: new(77), Isolated: new(true)},
		Kind: Veth{Peer: Spec{NS: y.box, Name: "eth0", Index: inBox, Up: true, MAC: mac(4), IPv6: quiet, Addrs: prefixes("10.0.0.2/24", "fd00::2/64")}},
	})
	y.free = mustCreate(t, y.host, Spec{Name: "free0", Up: true, MAC: mac(5), IPv6: quiet, Kind: Veth{Peer: Spec{Name: "free1", MAC: mac(6), IPv6: quiet}}})
	y.tunnel = mustCreate(t, y.host, Spec{Name: "vx0", Up: true, MAC: mac(7), IPv6: quiet, Kind: VXLAN{ID: new(uint32(7)), Port: 4789, Local: netip.MustParseAddr("10.0.0.1")}})
	y.ifb = mustCreate(t, y.host, Spec{Name: "ifb0", Up: true, MAC: mac(8), Master: y.br.Ref(), IPv6: quiet, Kind: IFB{}})
	ctx := t.Context()
	eth, err := Get(ctx, y.box, "eth0")
	y.eth = eth
	a := StaticAddr(netip.MustParsePrefix("fd77::77/64"))
	a.Metric = 77
	for _, err := range []error{
		err,
		y.port.AddFDBEntries(ctx, FDBEntry{MAC: mac(20)}),
		y.tunnel.AppendFDBEntries(ctx, FDBEntry{MAC: make(net.HardwareAddr, 6), Self: true, Dst: netip.MustParseAddr("10.0.0.9")}),
		y.br.AddNeighbours(ctx, Neighbour{Addr: netip.MustParseAddr("10.0.0.9"), MAC: mac(9)}, Neighbour{Addr: netip.MustParseAddr("10.0.0.50"), Flags: NeighbourProxy},
			Neighbour{Addr: netip.MustParseAddr("10.0.0.70"), MAC: mac(9), Protocol: syncOwner}, Neighbour{Addr: netip.MustParseAddr("fd00::70"), MAC: mac(9), Protocol: syncOwner},
			Neighbour{Addr: netip.MustParseAddr("10.0.0.71"), Flags: NeighbourProxy, Protocol: syncOwner}),
		y.br.AddAddrs(ctx, a),
		y.free.SetRate(ctx, Limit{Rate: 10 * Mbit}, Limit{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, wait := range []func() error{
		func() error { _, err := y.br.WaitCarrier(ctx); return err },
		func() error { return y.port.WaitForwarding(ctx) },
		func() error { return y.ifb.WaitForwarding(ctx) },
		func() error { return y.other.waitOper(ctx, OperDown) },
		func() error { return y.free.waitOper(ctx, OperLowerLayerDown) },
	} {
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
	return y
}

// waitOper waits for what the kernel finds out in the background about a link that
// came up without a carrier.
func (l Link) waitOper(ctx context.Context, want OperState) error {
	_, err := l.waitLink(ctx, "waitOper", func(now Link) bool { return now.OperState == want })
	return err
}

// Every verb of more than one step fails at each of them, among things that are
// there already, and leaves everything as it was.
func TestUndoIsExact(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 1, n} }
	static := func(s string) Addr { return StaticAddr(netip.MustParsePrefix(s)) }
	for i, c := range []struct {
		name string
		call func(context.Context, *undoTopology) error
	}{
		{"Create a veth", func(ctx context.Context, y *undoTopology) error {
			_, err := Create(ctx, y.host, Spec{
				Name: "new0", Up: true, Master: y.br.Ref(), Alias: "new", AltNames: []string{"new-long"}, Port: PortOptions{Cost: new(5)}, Addrs: prefixes("10.1.0.1/24"),
				Kind: Veth{Peer: Spec{NS: y.box, Name: "new1", Up: true, Addrs: prefixes("10.1.0.2/24", "fd01::2/64"), IPv6: IPv6Conf{AcceptRA: new(0)}}},
			})
			return err
		}},
		{"Create a bridge", func(ctx context.Context, y *undoTopology) error {
			_, err := Create(ctx, y.host, Spec{Name: "new0", Up: true, MTU: 1400, Kind: Bridge{AgeingTime: new(10 * time.Second)}, Addrs: prefixes("10.1.0.1/24", "fd01::1/64"), AltNames: []string{"n1", "n2"}})
			return err
		}},
		{"Ensure what is not there", func(ctx context.Context, y *undoTopology) error {
			_, err := Ensure(ctx, y.host, Spec{Name: "new0", Up: true, Master: y.br.Ref(), Kind: Veth{Peer: Spec{NS: y.box, Name: "new1", Up: true, Addrs: prefixes("10.1.0.2/24")}}})
			return err
		}},
		{"Ensure a bridge", func(ctx context.Context, y *undoTopology) error {
			_, err := Ensure(ctx, y.host, Spec{Name: "br0", Up: true, MTU: 1400, MAC: mac(1), Alias: "the bridge", AltNames: []string{"n1", "n2"}, Kind: Bridge{AgeingTime: new(10 * time.Second)}, Addrs: prefixes("10.0.0.1/24", "10.1.0.1/24", "fd01::1/64")})
			return err
		}},
		{"Ensure both ends of a pair", func(ctx context.Context, y *undoTopology) error {
			_, err := Ensure(ctx, y.host, Spec{Name: "web0", MTU: 1400, Master: y.other.Ref(), Port: PortOptions{Cost: new(5)}, Kind: Veth{Peer: Spec{NS: y.box, Name: "eth0", MTU: 1400, Alias: "eth", Addrs: prefixes("10.0.0.2/24", "10.1.0.2/24")}}})
			return err
		}},
		{"Update a port", func(ctx context.Context, y *undoTopology) error {
			_, err := y.port.Update(ctx, Spec{Master: y.other.Ref(), MTU: 1400, Alias: "x", AltNames: []string{"n1", "n2"}, Port: PortOptions{Cost: new(5), Isolated: new(false)}, IPv4: IPv4Conf{Forwarding: new(true)}, IPv6: IPv6Conf{AcceptRA: new(0), DADTransmits: new(0)}, Addrs: prefixes("10.1.0.1/24")})
			return err
		}},
		{"Update a name", func(ctx context.Context, y *undoTopology) error {
			_, err := y.eth.Update(ctx, Spec{Name: "wan0", TxQueueLen: new(7), IPv6: IPv6Conf{AcceptRA: new(0)}, Addrs: prefixes("fd01::2/64")})
			return err
		}},
		{"Update what is down", func(ctx context.Context, y *undoTopology) error {
			l, err := Get(context.Background(), y.host, "free1")
			if err == nil {
				_, err = l.Update(ctx, Spec{Up: true, MTU: 1400, Addrs: prefixes("10.1.0.1/24", "fd01::2/64")})
			}
			return err
		}},
		{"Update a VXLAN", func(ctx context.Context, y *undoTopology) error {
			_, err := y.tunnel.Update(ctx, Spec{MTU: 1400, Kind: VXLAN{TTL: 7}, Addrs: prefixes("10.1.0.1/24")})
			return err
		}},
		{"SetMaster to another", func(ctx context.Context, y *undoTopology) error { return y.port.SetMaster(ctx, y.other.Ref()) }},
		{"SetMaster to none", func(ctx context.Context, y *undoTopology) error { return y.port.SetMaster(ctx, Ref{}) }},
		{"Move a port", func(ctx context.Context, y *undoTopology) error {
			_, err := y.port.Move(ctx, y.box, MoveOptions{Name: "moved0", MTU: 1400, MAC: mac(7), Up: true})
			return err
		}},
		{"Move a box's link", func(ctx context.Context, y *undoTopology) error {
			o := MoveOptions{Name: "moved0", MTU: 1000}
			if testutil.KernelAtLeast(5, 13) {
				o.Index = 900
			}
			_, err := y.eth.Move(ctx, y.host, o)
			return err
		}},
		{"AddPrefixes", func(ctx context.Context, y *undoTopology) error {
			return y.br.AddPrefixes(ctx, prefixes("10.1.0.1/24", "10.1.0.2/24", "fd01::1/64", "fd01::2/64")...)
		}},
		{"AddAddrs", func(ctx context.Context, y *undoTopology) error {
			a, b := static("10.1.0.1/24"), static("fd01::1/64")
			a.Metric, b.Metric, b.Valid = 5, 6, time.Hour
			return y.br.AddAddrs(ctx, a, b)
		}},
		{"ReplaceAddrs", func(ctx context.Context, y *undoTopology) error {
			a, b, n, m := static("10.0.0.1/24"), static("fd00::1/64"), static("fd01::1/64"), static("fd77::77/64")
			a.Metric, b.Metric, b.Valid, m.Metric = 5, 6, time.Hour, 5000
			return y.br.ReplaceAddrs(ctx, a, b, n, m)
		}},
		{"AddNeighbours", func(ctx context.Context, y *undoTopology) error {
			return y.br.AddNeighbours(ctx,
				Neighbour{Addr: netip.MustParseAddr("10.0.0.60"), Flags: NeighbourProxy}, Neighbour{Addr: netip.MustParseAddr("fd00::60"), Flags: NeighbourProxy},
				Neighbour{Addr: netip.MustParseAddr("10.0.0.61"), MAC: mac(1)}, Neighbour{Addr: netip.MustParseAddr("fd00::61"), MAC: mac(1)})
		}},
		{"AddFDBEntries", func(ctx context.Context, y *undoTopology) error {
			return y.port.AddFDBEntries(ctx, FDBEntry{MAC: mac(1)}, FDBEntry{MAC: mac(2), Type: FDBLocal}, FDBEntry{MAC: mac(3), Self: true, Type: FDBLocal})
		}},
		{"AppendFDBEntries", func(ctx context.Context, y *undoTopology) error {
			all := make(net.HardwareAddr, 6)
			return y.tunnel.AppendFDBEntries(ctx, FDBEntry{MAC: all, Self: true, Dst: netip.MustParseAddr("10.0.0.10")}, FDBEntry{MAC: all, Self: true, Dst: netip.MustParseAddr("10.0.0.11")}, FDBEntry{MAC: mac(1), Self: true, Dst: netip.MustParseAddr("10.0.0.10")})
		}},
		{"SyncNeighbours", func(ctx context.Context, y *undoTopology) error {
			_, err := y.br.SyncNeighbours(ctx, syncOwner,
				Neighbour{Addr: netip.MustParseAddr("10.0.0.70"), MAC: mac(1)}, Neighbour{Addr: netip.MustParseAddr("10.0.0.72"), Flags: NeighbourProxy}, Neighbour{Addr: netip.MustParseAddr("fd00::72"), MAC: mac(1), Flags: NeighbourRouter})
			return err
		}},
		{"SyncFDB of a port", func(ctx context.Context, y *undoTopology) error {
			_, err := y.port.SyncFDB(ctx, FDBEntry{MAC: mac(1)}, FDBEntry{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 20}, Flags: FDBSticky})
			return err
		}},
		{"SyncFDB of a VXLAN", func(ctx context.Context, y *undoTopology) error {
			all := make(net.HardwareAddr, 6)
			_, err := y.tunnel.SyncFDB(ctx, FDBEntry{MAC: all, Self: true, Dst: netip.MustParseAddr("10.0.0.10")}, FDBEntry{MAC: mac(1), Self: true, Dst: netip.MustParseAddr("10.0.0.10")}, FDBEntry{MAC: all, Self: true, Dst: netip.MustParseAddr("10.0.0.11")})
			return err
		}},
		{"SetPort", func(ctx context.Context, y *undoTopology) error {
			return y.port.SetPort(ctx, PortOptions{Hairpin: new(false), Cost: new(5), Isolated: new(false), Learning: new(false)})
		}},
		{"SetRate where there is none", func(ctx context.Context, y *undoTopology) error {
			return y.port.SetRate(ctx, Limit{Rate: 10 * Mbit}, Limit{Rate: 20 * Mbit})
		}},
		{"SetRate where there is one", func(ctx context.Context, y *undoTopology) error {
			return y.free.SetRate(ctx, Limit{Rate: 20 * Mbit}, Limit{Rate: 20 * Mbit})
		}},
		{"SetRate to none", func(ctx context.Context, y *undoTopology) error {
			return y.free.SetRate(ctx, Limit{}, Limit{Rate: Mbit})
		}},
		{"DeleteAll", func(ctx context.Context, y *undoTopology) error { return DeleteAll(ctx, y.port, y.free, y.tunnel) }},
		{"Delete with an ifb", func(ctx context.Context, y *undoTopology) error { return y.free.Delete(ctx) }},
	} {
		if !testutil.Spread(i, 12) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testutil.Undone(t, func(t *testing.T) testutil.World {
				y := newUndoTopology(t)
				return testutil.World{Spaces: []*netns.NS{y.host, y.box}, Call: func(ctx context.Context) error { return c.call(ctx, y) }}
			})
		})
	}
}
