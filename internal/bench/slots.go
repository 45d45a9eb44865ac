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
	work: "4,000 ready namespaces, each with a veth that is routed and not bridged: an address of its own, a route out and one back, and no link-local addresses",
	unit: "slot",
	n:    4000,
	run: func(ctx context.Context, b *bout) error {
		before, err := memory()
		if err != nil {
			return err
		}
		total := map[string]time.Duration{}
		for _, kind := range []struct {
			name string
			make func(*host) (*contender, error)
		}{
			{nameBoxwire, boxwireSlot},
			{nameFloor, func(h *host) (*contender, error) { return floorSlot(h, nameFloor, true) }},
			{nameFloorLoud, func(h *host) (*contender, error) { return floorSlot(h, nameFloorLoud, false) }},
		} {
			took, err := fill(ctx, b, kind.make, func() error {
				if kind.name != nameBoxwire {
					return nil
				}
				after, err := memory()
				if !b.full {
					return err
				}
				b.note("%d slots took %.0f KiB of memory each, the kernel's included.", b.n, float64(after-before)/float64(b.n))
				return err
			})
			if err != nil {
				return err
			}
			total[kind.name] = took
			b.growth(kind.name, "slots", "namespaces alive", "ms a slot", max(b.n/40, 1))
		}
		b.note("In total: boxwire %.1f s, floor %.1f s, %s %.1f s.",
			total[nameBoxwire].Seconds(), total[nameFloor].Seconds(), nameFloorLoud, total[nameFloorLoud].Seconds())
		if !b.claim("boxwire / floor, in total", float64(total[nameBoxwire])/float64(total[nameFloor]), 1.15, false) {
			b.explain(nameBoxwire, nameFloor)
		}
		b.grows(nameBoxwire, 100, 2)
		for _, name := range []string{nameFloor, nameFloorLoud} {
			b.grew(name, 100)
		}
		return nil
	},
}

// nameFloorLoud leaves IPv6 as it comes: each link gets a link-local address.
const nameFloorLoud = "floor, IPv6 as it comes"

// fill makes all slots of one contender, calls full and lets them go. Contenders
// do not take turns here: each needs the machine with its own namespaces alone.
func fill(ctx context.Context, b *bout, make func(*host) (*contender, error), full func() error) (total time.Duration, err error) {
	if err := settle(ctx); err != nil {
		return 0, err
	}
	h, err := newHost(ctx)
	if err != nil {
		return 0, err
	}
	c, err := make(h)
	if err != nil {
		return 0, errors.Join(err, h.close())
	}
	defer func() {
		if c.close != nil {
			err = errors.Join(err, c.close())
		}
		err = errors.Join(err, h.close())
	}()
	for i := range b.n {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := b.turn(ctx, c, i, true); err != nil {
			return 0, fmt.Errorf("%s: slot %d: %w", c.name, i, err)
		}
	}
	for _, d := range b.figures[c.name] {
		total += d
	}
	return total, errors.Join(full(), h.checkSlots(b.n))
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

// boxwireSlot wants no link-local addresses: the kernel keeps those of all links
// in one list, and walks it for each that comes up.
func boxwireSlot(h *host) (*contender, error) {
	return &contender{name: nameBoxwire, round: func(ctx context.Context, i int) (time.Duration, error) {
		var ns *netns.NS
		d, err := took(func() (err error) {
			if ns, err = netns.New(ctx); err != nil {
				return err
			}
			l, err := link.Create(ctx, h.ns, link.Spec{
				Name: hostLink(i), Up: true, IPv6: quiet,
				Kind: link.Veth{Peer: link.Spec{
					NS: ns, Name: "eth0", Up: true, IPv6: quiet,
					Addrs: []netip.Prefix{slotAddr(i)},
				}},
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

// floorSlot makes pairs as boxwireSlot does, or with IPv6 as it comes.
func floorSlot(h *host, name string, quiet bool) (*contender, error) {
	return floorBoxes(h, name, func(i int) (p parcel) {
		index := 1000 + i // chosen, so that nothing has to be read back
		var box []byte
		if quiet {
			p.pair, p.fdAt = pair{index: index, name: hostLink(i), queues: oneQueue}.message()
			p.pair, box = raiseQuietly(p.pair, index), raiseQuietly(nil, eth0)
		} else {
			p.pair, p.fdAt = pair{index: index, name: hostLink(i), up: true}.message()
			box = floor.Message(nil, unix.RTM_NEWLINK, 0, floor.IfInfo(eth0, true))
		}
		box, back := slotMessages(box, i, index)
		p.box, p.back = [][]byte{box}, back
		return p
	})
}

// eth0 is the index of a new namespace's first link.
const eth0 = 2

// raiseQuietly appends what keeps a link from having a link-local address and
// sets it up then. The kernel takes the first only for a link that is there, and
// would do the other before it in one message.
func raiseQuietly(b []byte, index int) []byte {
	const addrGenMode, none = 8, 1 // IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE
	m := floor.IfInfo(index, false)
	m, spec := nl.Begin(m, unix.IFLA_AF_SPEC)
	m, inet6 := nl.Begin(m, unix.AF_INET6)
	m = nl.AppendAttr(m, addrGenMode, []byte{none})
	nl.End(m, inet6)
	nl.End(m, spec)
	b = floor.Message(b, unix.RTM_NEWLINK, 0, m)
	return floor.Message(b, unix.RTM_NEWLINK, unix.NLM_F_ACK, floor.IfInfo(index, true))
}

// slotMessages appends what else is sent inside slot i, and builds the route back
// to it.
func slotMessages(box []byte, i, index int) (msgs, back []byte) {
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
