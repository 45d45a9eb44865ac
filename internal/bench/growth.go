package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"github.com/vishvananda/netlink"
)

var growthRow = row{
	name: "growth",
	work: "attach boxes until there are 10,000, on bridges of 1,000 in turn",
	unit: "box",
	n:    10_000,
	run: func(ctx context.Context, b *bout) (err error) {
		g, err := newGrowth(ctx, restartSize{Bridges: b.size(10, 2), Boxes: b.n})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.close()) }()
		before, err := g.memory()
		if err != nil {
			return err
		}
		c := &contender{name: nameBoxwire, round: g.attach}
		for i := range b.n {
			if err := errors.Join(ctx.Err(), b.turn(ctx, c, i, true)); err != nil {
				return fmt.Errorf("box %d: %w", i, err)
			}
		}
		after, err := g.memory()
		if err != nil {
			return err
		}
		if err := g.check(); err != nil {
			return err
		}
		part := max(b.n/10, 1)
		b.growth(nameBoxwire, "growth", "boxes of the host", "ms an attach", part/2)
		first, last, part := b.ends(nameBoxwire, part)
		b.note("%s: the last %s / the first %s is %.2f. The first come when each bridge has few ports, the last when it has %s.",
			nameBoxwire, thousands(part), thousands(part), float64(last)/float64(first), thousands(b.n/g.size.Bridges))
		if b.full {
			b.note("A box took %.0f KiB of memory, of the whole machine. Of that, %.1f KiB are this process's, which keeps each namespace open.",
				float64(after.machine-before.machine)/float64(b.n), float64(after.process-before.process)/float64(b.n))
		}
		return nil
	},
}

// A grown host has several bridges.
type grown struct {
	size    restartSize
	ns      *netns.NS
	bridges []int
	boxes   []*os.File // their namespaces: an NS has a socket as well, and programs may open 20,000 files
}

func newGrowth(ctx context.Context, size restartSize) (g *grown, err error) {
	g = &grown{size: size}
	if g.ns, err = netns.New(ctx); err != nil {
		return nil, err
	}
	for i := range size.Bridges {
		br, err := link.Create(ctx, g.ns, link.Spec{
			Name: fmt.Sprintf("br%d", i), Up: true, MAC: []byte{2, 0, 0, 0, 1, byte(i)}, IPv6: quiet,
			Kind:  link.Bridge{MulticastSnooping: new(false)},
			Addrs: []netip.Prefix{netip.PrefixFrom(size.gateway(i), 16)},
		})
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.bridges = append(g.bridges, br.Index)
	}
	return g, nil
}

func (s restartSize) gateway(bridge int) netip.Addr { return s.subnet(bridge).Addr().Next() }

// attach makes the box of round i.
func (g *grown) attach(ctx context.Context, i int) (time.Duration, error) {
	bridge := i % g.size.Bridges
	var ns *netns.NS
	d, err := took(func() (err error) {
		if ns, err = netns.New(ctx); err != nil {
			return err
		}
		_, err = link.Create(ctx, g.ns, link.Spec{
			Name: hostLink(i), Up: true, Master: link.Ref{Index: g.bridges[bridge]}, IPv6: quiet,
			Kind: link.Veth{Peer: link.Spec{
				NS: ns, Name: "eth0", Up: true, IPv6: quiet,
				Addrs: []netip.Prefix{netip.PrefixFrom(g.size.box(i), 16)},
			}},
		})
		if err != nil {
			return err
		}
		return route.Add(ctx, ns, route.Default(g.size.gateway(bridge)))
	})
	if ns == nil {
		return d, err
	}
	f, kerr := hold(ns)
	if kerr == nil {
		g.boxes = append(g.boxes, f)
	}
	return d, errors.Join(err, kerr, ns.Close())
}

// check looks into some of the boxes: each has its address and a default route.
func (g *grown) check() error {
	for i := 0; i < len(g.boxes); i += 1 + len(g.boxes)/50 {
		handle, err := peek(func(look func(int) error) error { return look(int(g.boxes[i].Fd())) })
		if err != nil {
			return err
		}
		eth, err := handle.LinkByName("eth0")
		if err == nil {
			err = hasAddr(handle, eth, g.size.box(i))
		}
		handle.Close()
		if err != nil {
			return fmt.Errorf("box %d: %w", i, err)
		}
	}
	return nil
}

// inUse is memory in use, in KiB.
type inUse struct{ machine, process int }

func (g *grown) memory() (m inUse, err error) {
	if m.machine, err = memory(); err != nil {
		return m, err
	}
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return m, err
	}
	var size, resident int
	_, err = fmt.Sscan(string(b), &size, &resident)
	m.process = resident * os.Getpagesize() / 1024
	return m, err
}

func (g *grown) close() (err error) {
	for _, box := range g.boxes {
		err = errors.Join(err, box.Close())
	}
	return errors.Join(err, g.ns.Close())
}

// hasAddr wants a link to have one IPv4 address, and a default route.
func hasAddr(handle *netlink.Handle, l netlink.Link, want netip.Addr) error {
	addrs, err := handle.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	routes, err := handle.RouteList(l, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	if len(addrs) != 1 || addrs[0].IP.String() != want.String() || len(routes) != 2 {
		return fmt.Errorf("addresses %v and routes %v", addrs, routes)
	}
	return nil
}
