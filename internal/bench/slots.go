package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
	"golang.org/x/sys/unix"
)

var slotsRow = row{
	name: "slots-4000",
	work: "4,000 ready namespaces, each with a veth that is routed and not bridged: an address of its own, a route out and one back",
	unit: "slot",
	n:    4000,
	run: func(ctx context.Context, b *bout) error {
		before, err := memory()
		if err != nil {
			return err
		}
		var total [2]time.Duration
		for c, make := range []func(*host) (*contender, error){boxwireSlot, floorSlot} {
			if err := fill(ctx, b, make, &total[c]); err != nil {
				return err
			}
			if c == 0 {
				after, err := memory()
				if err != nil {
					return err
				}
				b.note("%d slots took %.1f s and %.0f KiB of memory each, the kernel's included.", b.n, total[0].Seconds(), float64(after-before)/float64(b.n))
			}
		}
		b.claim("boxwire / floor, in total", float64(total[0])/float64(total[1]), 1.15, false)
		b.grows(nameBoxwire, 100, 2)
		b.growth(nameBoxwire, "slots", "namespaces alive", "ms a slot", max(b.n/40, 1))
		b.growth(nameFloor, "slots", "namespaces alive", "ms a slot", max(b.n/40, 1))
		return nil
	},
}

// fill makes all slots of one contender. Contenders do not take turns here: each
// needs the machine with its own namespaces alone.
func fill(ctx context.Context, b *bout, make func(*host) (*contender, error), total *time.Duration) (err error) {
	if err := settle(ctx); err != nil {
		return err
	}
	h, err := newHost(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	c, err := make(h)
	if err != nil {
		return err
	}
	for i := range b.n {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := c.round(ctx, i)
		if err != nil {
			return fmt.Errorf("%s: slot %d: %w", c.name, i, err)
		}
		b.add(c.name, d)
		*total += d
	}
	return h.checkSlots(b.n)
}

// checkSlots counts what the slots have left on the host's side, and looks into
// some of them.
func (h *host) checkSlots(n int) error {
	routes, err := h.handle.RouteList(nil, unix.AF_INET)
	if err != nil {
		return err
	}
	back := 0
	for _, r := range routes {
		if r.Dst != nil && strings.HasPrefix(r.Dst.String(), "10.99.") {
			back++
		}
	}
	if back != n || len(h.boxes) != n {
		return fmt.Errorf("%d routes to %d slots, want %d", back, len(h.boxes), n)
	}
	for i := 0; i < n; i += 1 + n/50 {
		if err := checkSlot(h.boxes[i], i); err != nil {
			return fmt.Errorf("slot %d: %w", i, err)
		}
	}
	return nil
}

func checkSlot(box *os.File, i int) error {
	handle, err := peek(func(fn func(int) error) error { return fn(int(box.Fd())) })
	if err != nil {
		return err
	}
	defer handle.Close()
	eth, err := handle.LinkByName("eth0")
	if err != nil {
		return err
	}
	addrs, err := handle.AddrList(eth, unix.AF_INET)
	if err != nil {
		return err
	}
	routes, err := handle.RouteList(eth, unix.AF_INET)
	if err != nil {
		return err
	}
	if len(addrs) != 1 || addrs[0].IPNet.String() != slotAddr(i).String() || len(routes) != 1 {
		return fmt.Errorf("addresses %v and routes %v", addrs, routes)
	}
	return nil
}

func slotAddr(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}), 32)
}

func boxwireSlot(h *host) (*contender, error) {
	return &contender{name: nameBoxwire, round: func(ctx context.Context, i int) (time.Duration, error) {
		var ns *netns.NS
		d, err := took(func() (err error) {
			if ns, err = netns.New(ctx); err != nil {
				return err
			}
			l, err := link.Create(ctx, h.ns, link.Spec{
				Name: hostLink(i), Up: true,
				Kind: link.Veth{Peer: link.Spec{NS: ns, Name: "eth0", Up: true, Addrs: []netip.Prefix{slotAddr(i)}}},
			})
			if err != nil {
				return err
			}
			if err := route.Add(ctx, ns, route.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: l.PeerIndex}); err != nil {
				return err
			}
			return route.Add(ctx, h.ns, route.Route{Dst: slotAddr(i), Dev: l.Index})
		})
		if err != nil {
			return d, err
		}
		defer ns.Close()
		return d, h.keep(ns)
	}}, nil
}

func floorSlot(h *host) (*contender, error) {
	return floorBoxes(h, nameFloor, func(i int) (p parcel) {
		index := 1000 + i // chosen, so that nothing has to be read back
		p.pair, p.fdAt = pairMessage(index, 0, hostLink(i))
		box, back := slotMessages(i, index)
		p.box, p.back = [][]byte{box}, back
		return p
	})
}

// slotMessages builds what is sent inside slot i, and the route back to it.
func slotMessages(i, index int) (box, back []byte) {
	const eth0 = 2
	box = floor.Message(nil, unix.RTM_NEWLINK, 0, floor.IfInfo(eth0, true))
	addr := slotAddr(i).Addr().As4()
	a := binary.NativeEndian.AppendUint32([]byte{unix.AF_INET, 32, 0, 0}, eth0)
	a = nl.AppendAttr(a, unix.IFA_LOCAL, addr[:])
	a = nl.AppendAttr(a, unix.IFA_ADDRESS, addr[:])
	box = floor.Message(box, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a)

	header := func(bits byte) []byte {
		return []byte{unix.AF_INET, bits, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_LINK, unix.RTN_UNICAST, 0, 0, 0, 0}
	}
	const flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL | unix.NLM_F_ACK
	box = floor.Message(box, unix.RTM_NEWROUTE, flags, nl.AppendU32(header(0), unix.RTA_OIF, eth0))
	r := nl.AppendAttr(header(32), unix.RTA_DST, addr[:])
	return box, floor.Message(nil, unix.RTM_NEWROUTE, flags, nl.AppendU32(r, unix.RTA_OIF, uint32(index)))
}

// memory is what the machine has in use, in KiB: namespaces live in the kernel.
func memory() (int, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	var total, free int
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "MemTotal: %d kB", &total)
		fmt.Sscanf(line, "MemAvailable: %d kB", &free)
	}
	return total - free, nil
}
