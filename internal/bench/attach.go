package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

var gateway = netip.MustParseAddr(gateway4)

var attachRow = row{
	name: "attach",
	work: "a namespace with lo up, a veth pair made in place with one end on a bridge, an address and the default route",
	unit: "box",
	n:    200,
	run: func(ctx context.Context, b *bout) error {
		namespaces := map[string][]time.Duration{}
		for range b.size(repeats, 1) {
			contenders, err := b.each(ctx, boxwireAttach, floorAttach, inPlaceAttach, oneQueueAttach, moveAttach, shellAttach)
			if err != nil {
				return err
			}
			if err := b.interleave(ctx, b.n, contenders...); err != nil {
				return err
			}
			for _, c := range contenders {
				if len(c.namespaces) > warmUp {
					namespaces[c.name] = append(namespaces[c.name], c.namespaces[warmUp:]...)
				}
			}
		}
		b.atMost(nameBoxwire, nameFloor, 1.10)
		b.atMost(nameBoxwire, nameInPlace, 0.9)
		b.atMost(nameBoxwire, nameMove, 0.12)
		b.note("%s / %s is %.2f, %s / %s %.2f: no program gets below these.",
			nameFloor, nameInPlace, pairRatio(b.figures[nameFloor], b.figures[nameInPlace]),
			nameFloor, nameMove, pairRatio(b.figures[nameFloor], b.figures[nameMove]))
		b.note("The library gives a veth one queue each way, and so does the floor. The others leave that to the kernel, which makes one for each processor and takes all but the first out of use again, but for %q: %s takes %.2f of its time.",
			nameInPlaceQueue, nameBoxwire, pairRatio(b.figures[nameBoxwire], b.figures[nameInPlaceQueue]))
		b.brief("attach a box to a bridge, with its namespace", nameBoxwire, nameFloor,
			[2]string{"vishvananda/netlink", nameInPlace}, [2]string{"the same, made and then moved", nameMove}, [2]string{"`ip -batch`", nameShell})
		for _, name := range b.order {
			if d := namespaces[name]; len(d) > 0 {
				b.note("%s: %.1f µs are the namespace with its loopback link, the rest is the pair with address and route.", name, micro(median(d)))
			}
		}
		return nil
	},
}

// repeats is how often the boxes of the row are attached, on new bridges each time:
// single attachments differ by a factor of two, and what is claimed is a difference
// of a tenth.
const repeats = 3

// The contenders' names.
const (
	nameBoxwire      = "boxwire"
	nameFloor        = "floor"
	nameInPlace      = "vishvananda"
	nameInPlaceQueue = "vishvananda, one queue"
	nameMove         = "vishvananda, then move"
)

// each gives every contender a host of its own, and leaves out those that cannot
// be run here.
func (b *bout) each(ctx context.Context, make ...func(*host) (*contender, error)) (all []*contender, err error) {
	for _, m := range make {
		h, err := newHost(ctx)
		if err != nil {
			return nil, errors.Join(err, closeAll(all))
		}
		c, err := m(h)
		if err != nil {
			if err := b.excuse(nameShell, errors.Join(err, h.close())); err != nil {
				return nil, errors.Join(err, closeAll(all))
			}
			continue
		}
		if c.check == nil {
			c.check = h.check
		}
		own := c.close
		c.close = func() error {
			if own == nil {
				return h.close()
			}
			return errors.Join(own(), h.close())
		}
		all = append(all, c)
	}
	return all, nil
}

func boxwireAttach(h *host) (*contender, error) {
	return attachTo(h, nameBoxwire, netns.New, false), nil
}

// attachTo attaches namespaces that get provides; untimed, where that is done
// beforehand.
func attachTo(h *host, name string, get func(context.Context) (*netns.NS, error), beforehand bool) *contender {
	c := &contender{name: name}
	c.round = func(ctx context.Context, i int) (d time.Duration, err error) {
		var ns *netns.NS
		if beforehand {
			if ns, err = get(ctx); err != nil {
				return 0, err
			}
		}
		d, err = took(func() (err error) {
			if !beforehand {
				begin := time.Now()
				if ns, err = get(ctx); err != nil {
					return err
				}
				c.namespaces = append(c.namespaces, time.Since(begin))
			}
			return plug(ctx, h, ns, i)
		})
		if err != nil {
			return d, err
		}
		defer ns.Close()
		return d, h.keep(ns)
	}
	return c
}

// plug connects a namespace to the host's bridge, as box i.
func plug(ctx context.Context, h *host, ns *netns.NS, i int) error {
	_, err := link.Create(ctx, h.ns, link.Spec{
		Name: hostLink(i), Up: true, Master: link.Ref{Index: h.bridge},
		Kind: link.Veth{Peer: link.Spec{
			NS: ns, Name: "eth0", Up: true,
			Addrs: []netip.Prefix{boxAddr(i)},
		}},
	})
	if err != nil {
		return err
	}
	return route.Add(ctx, ns, route.Default(gateway))
}

// within runs fn in a namespace.
func within(ns *netns.NS, fn func() error) error {
	_, err := netns.Do(context.Background(), ns, func(context.Context) (struct{}, error) { return struct{}{}, fn() })
	return err
}
