package race

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"golang.org/x/sys/unix"
)

// Boxwire is the library's name among the contenders.
const Boxwire = "boxwire"

// Library is a program that makes boxes with the library, which is this process.
type Library struct {
	m     *machine.Machine
	probe string // the program in a box
	last  uint8  // of the last box's address
}

// NewLibrary builds the program that runs in the boxes.
func NewLibrary(b *testing.B, m *machine.Machine) *Library {
	b.Helper()
	return &Library{m: m, probe: machine.BuildProgram(b, "./internal/engines/probe")}
}

// Attach makes a namespace, attaches it to a bridge that is there, and publishes a port.
func (l *Library) Attach(b *testing.B) Contender {
	b.Helper()
	h, err := l.open(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := h.close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return Contender{Name: Boxwire, Round: func(b *testing.B, name string) time.Duration {
		b.Helper()
		var x *box
		var err error
		d := Took(func() { x, err = h.attach(b.Context(), name, l.next()) })
		if err == nil {
			err = l.start(b.Context(), x, name)
		}
		if err != nil {
			b.Fatal(err)
		}
		Answered(b, l.m, name)
		if err := x.close(b.Context()); err != nil {
			b.Fatal(err)
		}
		Gone(b, l.m)
		return d
	}}
}

// FirstByte begins on a machine without bridge and table, starts a server in a box, and ends with its first answer.
func (l *Library) FirstByte() Contender {
	return Contender{Name: Boxwire, Round: func(b *testing.B, name string) (d time.Duration) {
		b.Helper()
		ctx := b.Context()
		var h *host
		var x *box
		d = Took(func() {
			var err error
			if h, err = l.open(ctx); err == nil {
				x, err = h.attach(ctx, name, l.next())
			}
			if err == nil {
				err = l.start(ctx, x, name)
			}
			if err != nil {
				b.Fatal(err)
			}
			Answered(b, l.m, name)
		})
		if err := errors.Join(x.close(ctx), h.close(ctx)); err != nil {
			b.Fatal(err)
		}
		Gone(b, l.m)
		return d
	}}
}

// next is the address of the next box: the machine may know the last one's hardware address still.
func (l *Library) next() netip.Addr {
	l.last = l.last%250 + 1
	return netip.AddrFrom4([4]byte{172, 30, 0, l.last + 1})
}

// start starts the server.
func (l *Library) start(ctx context.Context, x *box, name string) error {
	x.server = x.ns.Command(ctx, l.probe, "-name", name, "-http", ":80")
	return x.server.Start()
}

var (
	gateway = netip.MustParsePrefix("172.30.0.1/24")
	subnet  = gateway.Masked()
)

// host is a bridge with a network and its table.
type host struct {
	ns     *netns.NS
	bridge link.Link
	nat    *nat.NAT
}

// open makes them. Beside Docker, boxes are reached after AcceptForward.
func (l *Library) open(ctx context.Context) (h *host, err error) {
	h = &host{ns: l.m.NS}
	h.bridge, err = link.Create(ctx, h.ns, link.Spec{Name: "boxwire0", Up: true, Kind: link.Bridge{}, Addrs: []netip.Prefix{gateway}})
	if err != nil {
		return nil, err
	}
	if h.nat, err = nat.Open(ctx, h.ns, nat.Options{}); err != nil {
		return nil, err
	}
	if err = h.nat.AddNetwork(ctx, nat.Network{Interface: "boxwire0", Subnets: []netip.Prefix{subnet}, Masquerade: true}); err != nil {
		return nil, err
	}
	return h, h.nat.AcceptForward(ctx)
}

func (h *host) close(ctx context.Context) error {
	return errors.Join(h.nat.Delete(ctx), h.nat.Close(), h.bridge.Delete(ctx))
}

// box is a namespace that is attached.
type box struct {
	h      *host
	ns     *netns.NS
	eth    link.Link
	port   nat.Port
	server *netns.Cmd
}

func (h *host) attach(ctx context.Context, name string, addr netip.Addr) (x *box, err error) {
	x = &box{h: h, port: nat.Port{
		Proto: nat.TCP, Host: netip.AddrPortFrom(netip.IPv4Unspecified(), 8080), Box: netip.AddrPortFrom(addr, 80), Owner: name,
	}}
	if x.ns, err = netns.New(ctx); err != nil {
		return nil, err
	}
	x.eth, err = link.Create(ctx, h.ns, link.Spec{
		Name: "box0", Up: true, Master: h.bridge.Ref(),
		Kind: link.Veth{Peer: link.Spec{NS: x.ns, Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(addr, subnet.Bits())}}},
	})
	if err != nil {
		return nil, err
	}
	if err = route.Add(ctx, x.ns, route.Default(gateway.Addr())); err != nil {
		return nil, err
	}
	return x, h.nat.Publish(ctx, x.port)
}

func (x *box) close(ctx context.Context) error {
	err := x.server.Process.Signal(unix.SIGTERM)
	if err == nil {
		err = x.server.Wait()
	}
	return errors.Join(err, x.h.nat.Unpublish(ctx, x.port), x.eth.Delete(ctx), x.ns.Close())
}
