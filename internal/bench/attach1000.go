package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

var attach1000Row = row{
	name: "attach-1000",
	work: "boxes on one bridge until it has 1,000 of them, for IPv4 alone and dual stack; the floor leaves IPv6 and the numbers of queues as they come",
	unit: "box",
	n:    1000,
	run: func(ctx context.Context, b *bout) error {
		part := max(b.n/10, 1)
		for _, kind := range []struct {
			name string
			make func(*host) (*contender, error)
		}{
			{nameV4, func(h *host) (*contender, error) { return crowded(h, nameV4, false, false) }},
			{nameDual, func(h *host) (*contender, error) { return crowded(h, nameDual, true, false) }},
			{nameQuiet, func(h *host) (*contender, error) { return crowded(h, nameQuiet, true, true) }},
			{nameFloor, func(h *host) (*contender, error) { return floorCrowded(h, nameFloor, 0, false) }},
			{nameFloorDual, func(h *host) (*contender, error) { return floorCrowded(h, nameFloorDual, 0, true) }},
			{nameFloorQueue, func(h *host) (*contender, error) { return floorCrowded(h, nameFloorQueue, oneQueue, false) }},
			{nameFloorDualQueue, func(h *host) (*contender, error) { return floorCrowded(h, nameFloorDualQueue, oneQueue, true) }},
			{nameFloorGroup, func(h *host) (*contender, error) { return floorCrowdedGroup(h, 1) }},
		} {
			if err := crowd(ctx, b, kind.make); err != nil {
				return err
			}
			b.growth(kind.name, "attach", "boxes on the bridge", "ms an attach", part/2)
		}
		b.grows(nameV4, part, 2)
		b.grows(nameDual, part, 2)
		b.grows(nameQuiet, part, 1.5)
		b.grew(nameFloorGroup, part)
		last := func(name string) float64 {
			f := b.figures[name]
			return float64(median(f[len(f)-part:]))
		}
		b.claim(fmt.Sprintf("the last %d: %s / %s", part, nameV4, nameFloor), last(nameV4)/last(nameFloor), 0.35, false)
		b.claim(fmt.Sprintf("the last %d: %s / %s", part, nameDual, nameFloorDual), last(nameDual)/last(nameFloorDual), 0.35, false)
		b.note("What grows is the kernel's: for each port that is added it walks all ports of the bridge, its forwarding table and the ids of all namespaces (br_add_if, peernet2id).")
		b.note("With dual stack, each box says within a second for a second time what it listens to (MLD), and the bridge floods that to all ports: with 1,000 of them it keeps one processor busy for some milliseconds a box, whatever attaches them. The ports of a network's group (PortGroup of nat.Network) do not get it.")
		b.note("Of the last %d, %s / %s is %.2f, %s / %s %.2f: these floors leave IPv6 as it comes, and have one queue each way as the library has them. %s / %s is %.2f, %s / %s %.2f.",
			part, nameV4, nameFloorQueue, last(nameV4)/last(nameFloorQueue), nameDual, nameFloorDualQueue, last(nameDual)/last(nameFloorDualQueue),
			nameFloorQueue, nameFloor, last(nameFloorQueue)/last(nameFloor), nameFloorDualQueue, nameFloorDual, last(nameFloorDualQueue)/last(nameFloorDual))
		return nil
	},
}

const (
	nameV4             = "boxwire, IPv4 alone"
	nameDual           = "boxwire, dual stack"
	nameQuiet          = "boxwire, dual stack, a port group"
	nameFloorDual      = "floor, dual stack"
	nameFloorQueue     = "floor, one queue"
	nameFloorDualQueue = "floor, dual stack, one queue"
	nameFloorGroup     = "floor, dual stack, a port group"
)

var attach4000Row = row{
	name: "attach-4000",
	work: "boxes on four bridges until each has 1,000 of them, for IPv4 alone and dual stack with a port group",
	unit: "box",
	n:    4000,
	run: func(ctx context.Context, b *bout) error {
		part := max(b.n/40, 1)
		for _, make := range []func(*host) (*contender, error){
			func(h *host) (*contender, error) { return crowdedBridges(h, nameV4, false, false, 4) },
			func(h *host) (*contender, error) { return crowdedBridges(h, nameQuiet, true, true, 4) },
			func(h *host) (*contender, error) { return floorCrowdedGroup(h, 4) },
		} {
			if err := crowd(ctx, b, make); err != nil {
				return err
			}
		}
		b.grows(nameQuiet, part, 1.5)
		b.grew(nameV4, part)
		b.grew(nameFloorGroup, part)
		b.note("What grows is the kernel's walks over the ports of a bridge and the ids of namespaces.")
		return nil
	},
}

// crowd fills a bridge with the boxes of one contender. Contenders do not take
// turns: each needs the machine with its own bridge alone.
func crowd(ctx context.Context, b *bout, make func(*host) (*contender, error)) error {
	if err := settle(ctx); err != nil {
		return err
	}
	all, err := b.each(ctx, make)
	if err != nil {
		return err
	}
	c := all[0]
	for i := range b.n {
		if err = b.turn(ctx, c, i, true); err != nil {
			err = fmt.Errorf("%s: box %d: %w", c.name, i, err)
			break
		}
	}
	if err == nil && b.n <= 50 { // looking into a thousand boxes takes longer than making them
		err = c.check(ctx)
	}
	if cerr := c.close(); err == nil {
		err = cerr
	}
	return err
}

// crowded attaches boxes in the way that the documentation of package link
// advises for large bridges.
func crowded(h *host, name string, dual, quiet bool) (*contender, error) {
	return crowdedBridges(h, name, dual, quiet, 1)
}

// crowdedBridges does so on several bridges, of which each box is on the next one.
func crowdedBridges(h *host, name string, dual, quiet bool, n int) (*contender, error) {
	if err := prepareBridge(h, dual, quiet); err != nil {
		return nil, err
	}
	bridges, err := moreBridges(h, n)
	if err != nil {
		return nil, err
	}
	return &contender{name: name, round: func(ctx context.Context, i int) (time.Duration, error) {
		var ns *netns.NS
		d, err := took(func() (err error) {
			if ns, err = netns.New(ctx); err != nil {
				return err
			}
			return plugCrowded(ctx, h, ns, bridges[i%n], i, dual)
		})
		if err != nil {
			return d, err
		}
		defer ns.Close()
		return d, h.keep(ns)
	}}, nil
}

// moreBridges returns so many bridges, of which the host's is the first.
func moreBridges(h *host, n int) ([]int, error) {
	bridges := []int{h.bridge}
	for i := 1; i < n; i++ {
		br, err := link.Create(context.Background(), h.ns, link.Spec{
			Name: fmt.Sprintf("br%d", i), Up: true, MAC: []byte{2, 0, 0, 0, 0, byte(i + 1)},
			Kind: link.Bridge{MulticastSnooping: new(false)},
		})
		if err != nil {
			return nil, err
		}
		bridges = append(bridges, br.Index)
	}
	return bridges, nil
}

// boxAddr6 is the IPv6 address of the box of round i.
func boxAddr6(i int) netip.Prefix {
	a := [16]byte{0xfd, 0x88, 15: 0}
	binary.BigEndian.PutUint16(a[14:], uint16(i+2))
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// floorCrowded does what floorAttach does, with so many queues (0: as many as the
// kernel makes) and, for dual stack, with an IPv6 address and route as well.
func floorCrowded(h *host, name string, queues uint32, dual bool) (*contender, error) {
	return floorBoxes(h, name, func(i int) parcel {
		p := h.parcelOf(i, queues)
		if dual {
			p.box = append(p.box, boxMessages6(i))
		}
		return p
	})
}

// floorCrowdedGroup has the kernel do what the library asks of it for dual stack with a port group, on so
// many bridges.
func floorCrowdedGroup(h *host, n int) (*contender, error) {
	if err := prepareBridge(h, true, true); err != nil {
		return nil, err
	}
	bridges, err := moreBridges(h, n)
	if err != nil {
		return nil, err
	}
	return floorBoxes(h, nameFloorGroup, func(i int) (p parcel) {
		index := 100000 + i // chosen, so that nothing has to be read back
		p.pair, p.fdAt = pair{index: index, master: bridges[i%n], group: portGroup, name: hostLink(i), queues: oneQueue}.message()
		p.pair = raiseQuietly(p.pair, index)
		p.box = [][]byte{raiseQuietly(nil, eth0), boxAddress(nil, i), boxMessages6(i)}
		return p
	})
}

// boxMessages6 builds what dual stack adds inside box i.
func boxMessages6(i int) []byte {
	addr := boxAddr6(i).Addr().As16()
	a := binary.NativeEndian.AppendUint32([]byte{unix.AF_INET6, 64, unix.IFA_F_NODAD, 0}, eth0)
	a = nl.AppendAttr(a, unix.IFA_LOCAL, addr[:])
	a = nl.AppendAttr(a, unix.IFA_ADDRESS, addr[:])
	msgs := floor.Message(nil, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a)
	gw := gateway6.As16()
	r := []byte{unix.AF_INET6, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	r = nl.AppendAttr(r, unix.RTA_GATEWAY, gw[:])
	return floor.Message(msgs, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, r)
}

var gateway6 = netip.MustParseAddr("fd88::1")
