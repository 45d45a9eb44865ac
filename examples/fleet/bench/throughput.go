//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/route"
)

var throughputRow = row{
	name: "throughput", rounds: 15, run: runThroughput,
	work: "TCP from a box on one host to a box on another, one connection: by the fleet's tunnel, by a plain VXLAN with forwarding entries and neighbours, and routed without a tunnel, in turns of 600 ms",
}

const (
	byFleet  = "by the fleet's tunnel"
	byVXLAN  = "by a plain VXLAN with FDB"
	byDirect = "routed, without a tunnel"
)

// A way is a pair of boxes on two hosts.
type way struct {
	name     string
	from, to *lab.Box
}

func runThroughput(ctx context.Context, b *bout) (err error) {
	w, err := mesh(ctx, 2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	ways, err := w.ways(ctx)
	if err != nil {
		return err
	}
	turn := time.Duration(b.size(600, 100)) * time.Millisecond
	for i := range 1 + b.rounds {
		for k := range ways {
			way := ways[(i+k)%len(ways)] // each is the first as often as the others
			rate, err := way.measure(ctx, turn)
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			if i > 0 {
				b.add(way.name, "Gbit/s", rate)
			}
		}
	}
	b.result.Claims = append(b.result.Claims, Claim{
		Text: "the fleet's tunnel / a plain VXLAN, median of the ratios", Value: b.ratio(byFleet, byVXLAN), Least: true, Bound: 0.95,
	})
	b.note("The fleet's tunnel / routed without one: %s. Sender, receiver and both hosts share the processors.", number(b.ratio(byFleet, byDirect)))
	return nil
}

// ways makes a pair of boxes for each way.
func (w *world) ways(ctx context.Context) ([]way, error) {
	fleet := way{name: byFleet}
	hosts := w.nodes()
	gateways, err := w.joined(ctx, hosts)
	if err != nil {
		return nil, err
	}
	fleetBox := func(i int) (*lab.Box, error) {
		return hosts[i].Box(ctx, lab.BoxSpec{Addrs: []netip.Prefix{netip.PrefixFrom(gateways[i].Next(), 24)}, MTU: 1464})
	}
	if fleet.from, err = fleetBox(0); err != nil {
		return nil, err
	}
	if fleet.to, err = fleetBox(1); err != nil {
		return nil, err
	}
	vxlan, err := w.plain(ctx, byVXLAN, 200, 1450, w.plainVXLAN)
	if err != nil {
		return nil, err
	}
	direct, err := w.plain(ctx, byDirect, 201, 1500, w.plainRoute)
	return []way{fleet, vxlan, direct}, err
}

// plain makes a pair of boxes in 10.net.0.0/24 and 10.net.1.0/24, and has connect lead from host to host.
func (w *world) plain(ctx context.Context, name string, net, mtu int, connect func(context.Context, int, netip.Prefix) error) (way, error) {
	ends := [2]*lab.Box{}
	for i, h := range w.nodes() {
		there := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(net), byte(1 - i), 0}), 24)
		if err := connect(ctx, i, there); err != nil {
			return way{}, err
		}
		own := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(net), byte(i), 2}), 24)
		var err error
		if ends[i], err = h.Box(ctx, lab.BoxSpec{Addrs: []netip.Prefix{own}, MTU: mtu}); err != nil {
			return way{}, err
		}
	}
	return way{name, ends[0], ends[1]}, nil
}

// plainRoute leads to a prefix by the other host's address.
func (w *world) plainRoute(ctx context.Context, i int, there netip.Prefix) error {
	return route.Add(ctx, w.nodes()[i].NS, route.Route{Dst: there, Via: w.nodes()[1-i].Addr4().Addr()})
}

// plainVXLAN leads to a prefix by a VXLAN as flannel makes it: a route, a neighbour and a forwarding entry for each peer.
func (w *world) plainVXLAN(ctx context.Context, i int, there netip.Prefix) error {
	here, other := w.nodes()[i], w.nodes()[1-i]
	mac := func(i int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 9, byte(i)} }
	inner := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 199, 0, byte(1 + i)}) }
	l, err := link.Create(ctx, here.NS, link.Spec{
		Name: "vx0", Up: true, MTU: 1450, MAC: mac(i), Addrs: []netip.Prefix{netip.PrefixFrom(inner(i), 32)},
		IPv4: link.IPv4Conf{Forwarding: new(true)},
		Kind: link.VXLAN{ID: new(uint32(9)), Local: here.Addr4().Addr(), Port: 8472, Learning: new(false)},
	})
	if err != nil {
		return err
	}
	if err := l.AddFDBEntries(ctx, link.FDBEntry{Self: true, MAC: mac(1 - i), Dst: other.Addr4().Addr()}); err != nil {
		return err
	}
	if err := l.AddNeighbours(ctx, link.Neighbour{Addr: inner(1 - i), MAC: mac(1 - i)}); err != nil {
		return err
	}
	return route.Add(ctx, here.NS, route.Route{Dst: there, Via: inner(1 - i), Dev: l.Index, OnLink: true})
}

// measure sends for a time, and returns what has arrived in Gbit/s.
func (w way) measure(ctx context.Context, d time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, d+10*time.Second)
	defer cancel()
	ln, err := w.to.NS.Listen(ctx, "tcp", netip.AddrPortFrom(w.to.Addr(), 0).String())
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	out, err := w.from.NS.Dial(ctx, "tcp", ln.Addr().String())
	if err != nil {
		return 0, err
	}
	defer out.Close()
	in, err := ln.Accept()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	go func() {
		chunk := make([]byte, 256<<10)
		for {
			if _, err := out.Write(chunk); err != nil {
				return
			}
		}
	}()
	chunk := make([]byte, 256<<10)
	var got int
	var began time.Time
	// The first part of the time is TCP's, which finds its window.
	start := time.Now().Add(d / 4)
	in.SetReadDeadline(start.Add(d))
	for {
		n, err := in.Read(chunk)
		now := time.Now()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if got == 0 {
				return 0, errors.New("nothing has arrived")
			}
			return float64(got) * 8 / now.Sub(began).Seconds() / 1e9, nil
		case err != nil:
			return 0, err
		case now.Before(start):
			began = now
		default:
			got += n
		}
	}
}
