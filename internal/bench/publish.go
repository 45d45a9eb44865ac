package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// nftTable is the table that contenders without the library write into: the one
// that the library has installed, so that all work on the same maps.
const nftTable = "boxwire"

var publishRow = row{
	name: "publish",
	work: "publish one port with none, 1,000 and 50,000 published, and 10,000 at once",
	unit: "change",
	n:    100,

	plugins: true,
	run: func(ctx context.Context, b *bout) error {
		sizes := []int{0, b.size(1000, 100), b.size(50_000, 500)}
		for _, ports := range sizes {
			if err := publishOne(ctx, b, ports); err != nil {
				return err
			}
		}
		for _, ports := range sizes[1:] {
			b.atMost(with(nameBoxwire, ports), with(nameBoxwire, 0), 1.3)
		}
		b.atMost(with(nameBoxwire, 0), with(nameFloor, 0), 1.3)
		b.atMost(with(nameBoxwire, sizes[2]), with(nameFloor, sizes[2]), 1.3)
		if portmap := with(namePortmap, 0); b.has(portmap) {
			b.faster(with(nameBoxwire, 0), portmap, 20)
		}
		for _, ports := range []int{sizes[0], sizes[2]} {
			b.brief("publish a port beside "+thousands(ports)+" others", with(nameBoxwire, ports), with(nameFloor, ports),
				[2]string{"`nft -f`", with(nameNft, ports)}, [2]string{"CNI's portmap", with(namePortmap, ports)})
		}
		curve(b, nameBoxwire, sizes)
		curve(b, nameFloor, sizes)
		curve(b, nameNft, sizes)
		b.note("The floor does what the library does, with messages that were built beforehand: the lock file, the generation and whether another port or range takes the host port, a socket that keeps it from other programs, the batch, the number of flows that may have to be ended. It is on a thread that never leaves the namespace. %q does the batch alone, which looks at nothing and keeps no program out: %s costs %.1f times that.",
			nameBatch, with(nameBoxwire, 0), pairRatio(b.figures[with(nameBoxwire, 0)], b.figures[with(nameBatch, 0)]))
		return publishMany(ctx, b, b.size(10_000, 200))
	},
}

const (
	nameUnreserved = "boxwire, NoReserve"
	nameBatch      = "the batch alone"
)

func with(name string, ports int) string { return fmt.Sprintf("%s, with %d", name, ports) }

// curve draws the cost against the number of ports.
func curve(b *bout, name string, sizes []int) {
	c := Curve{Name: name, Chart: "publish", X: "ports published", Y: "ms a port"}
	for _, n := range sizes {
		if f := b.figures[with(name, n)]; len(f) > 0 {
			c.Value = append(c.Value, Point{X: float64(n), Y: micro(median(f)) / 1000})
		}
	}
	if len(c.Value) > 1 {
		b.curves = append(b.curves, c)
	}
}

// portOf is the i-th of the ports that are there beforehand.
func portOf(i int) nat.Port {
	host := netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + i/50_000)})
	return nat.Port{
		Proto: nat.TCP, Owner: "bench",
		Host: netip.AddrPortFrom(host, uint16(10_000+i%50_000)),
		Box:  netip.AddrPortFrom(boxAddr(i%200).Addr(), 80),
	}
}

// extra is the port that a round publishes.
var extra = nat.Port{
	Proto: nat.TCP, Owner: "extra",
	Host: netip.MustParseAddrPort("0.0.0.0:8080"),
	Box:  netip.MustParseAddrPort("10.88.0.2:80"),
}

// gate is a namespace with the library's table and some published ports in it.
func gate(ctx context.Context, ports int, o nat.Options) (*netns.NS, *nat.NAT, error) {
	ns, err := netns.New(ctx)
	if err != nil {
		return nil, nil, err
	}
	gw, err := nat.Open(ctx, ns, o)
	if err != nil {
		ns.Close()
		return nil, nil, err
	}
	all := make([]nat.Port, ports)
	for i := range all {
		all[i] = portOf(i)
	}
	if err := gw.Sync(ctx, nat.State{Ports: all}); err != nil {
		ns.Close()
		return nil, nil, err
	}
	return ns, gw, nil
}

// publishOne measures the contenders that make system calls in turns, and then
// those that start processes. A process leaves nothing in the caches, so what runs
// behind it would be measured by the size of its code.
func publishOne(ctx context.Context, b *bout, ports int) error {
	type kind struct {
		name string
		make func(context.Context, int) (*contender, error)
	}
	for i, kinds := range [][]kind{
		{{nameBoxwire, boxwirePublish}, {nameUnreserved, unreservedPublish}, {nameFloor, floorPublish}, {nameBatch, batchPublish}},
		{{nameNft, nftPublish}, {namePortmap, portmapPublish}},
	} {
		var all []*contender
		for _, kind := range kinds {
			c, err := kind.make(ctx, ports)
			switch {
			case err != nil:
				if err := b.excuse(kind.name, err); err != nil {
					return errors.Join(err, closeAll(all))
				}
			case c != nil:
				all = append(all, c)
			}
		}
		rounds := b.n
		if i == 0 { // one takes a tenth of a millisecond, and single ones differ by a factor of two
			rounds *= b.size(10, 1)
		}
		if err := b.interleave(ctx, rounds, all...); err != nil {
			return err
		}
	}
	return nil
}

func boxwirePublish(ctx context.Context, ports int) (*contender, error) {
	return publisher(ctx, nameBoxwire, ports, nat.Options{})
}

// unreservedPublish leaves the socket that keeps the port from other programs to
// the caller, such as an engine that holds it itself.
func unreservedPublish(ctx context.Context, ports int) (*contender, error) {
	return publisher(ctx, nameUnreserved, ports, nat.Options{NoReserve: true})
}

func publisher(ctx context.Context, name string, ports int, o nat.Options) (*contender, error) {
	ns, gw, err := gate(ctx, ports, o)
	if err != nil {
		return nil, err
	}
	return &contender{
		name:  with(name, ports),
		close: func() error { gw.Close(); return ns.Close() },
		round: func(ctx context.Context, _ int) (time.Duration, error) {
			d, err := took(func() error { return gw.Publish(ctx, extra) })
			if err != nil {
				return d, err
			}
			if err := published(ns); err != nil {
				return d, err
			}
			return d, gw.Unpublish(ctx, extra)
		},
	}, nil
}

// anyKey is the key of a port in the map of those on all addresses.
func anyKey(p nat.Port) []byte {
	n := p.Host.Port()
	return []byte{byte(p.Proto), 0, 0, 0, byte(n >> 8), byte(n), 0, 0}
}

func boxData(p nat.Port) []byte {
	a, n := p.Box.Addr().As4(), p.Box.Port()
	return append(a[:], byte(n>>8), byte(n), 0, 0)
}

// published asks the kernel, past every contender, whether the element is there.
func published(ns *netns.NS) error {
	sock, err := openFloor(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer sock.Close()
	if err := sock.HasElement(nftTable, "any4", anyKey(extra)); err != nil {
		return fmt.Errorf("the port is not published: %w", err)
	}
	return nil
}
