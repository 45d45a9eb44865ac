package main

import (
	"context"
	"fmt"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

const (
	nameTogether = "boxwire, together"
	nameSingly   = "boxwire, one by one"
	nameByMany   = "boxwire, each by a goroutine"
	namePeerDel  = "vishvananda, one by one"
)

var detachRow = row{
	name: "detach",
	work: "300 boxes go: their links by one call, then their namespaces; the figure is one box of them",
	unit: "box",
	n:    3,
	run: func(ctx context.Context, b *bout) error {
		boxes := b.size(300, 10)
		contenders := []*contender{
			detach(nameTogether, boxes, func(ctx context.Context, h *host, links []link.Link) error {
				return link.DeleteAll(ctx, links...)
			}),
			detach(nameSingly, boxes, func(ctx context.Context, h *host, links []link.Link) error {
				for _, l := range links {
					if err := l.Delete(ctx); err != nil {
						return err
					}
				}
				return nil
			}),
			detach(nameByMany, boxes, func(ctx context.Context, h *host, links []link.Link) error {
				return atOnce(len(links), func(i int) error { return links[i].Delete(ctx) })
			}),
			detach(namePeerDel, boxes, func(ctx context.Context, h *host, links []link.Link) error {
				for _, l := range links {
					peer, err := h.handle.LinkByName(l.Name)
					if err != nil {
						return err
					}
					if err := h.handle.LinkDel(peer); err != nil {
						return err
					}
				}
				return nil
			}),
		}
		if _, err := tool("ip"); err == nil {
			contenders = append(contenders, detach(nameShell, boxes, shellDetach))
		} else if err := b.excuse(nameShell, err); err != nil {
			return err
		}
		if err := b.interleave(ctx, b.n, contenders...); err != nil {
			return err
		}
		b.claim(nameTogether+", ms a box", micro(median(b.figures[nameTogether]))/1000, 1, false)
		b.faster(nameTogether, nameSingly, 20)
		b.brief(fmt.Sprintf("detach one of %d boxes", boxes), nameTogether, "",
			[2]string{"vishvananda/netlink", namePeerDel}, [2]string{"`ip -batch`", nameShell})
		b.note("The kernel waits for a grace period with every message that deletes, so that one by one the number of messages is the cost. It waits without its lock, so that goroutines wait together.")
		return nil
	},
}

// detach makes a contender that takes boxes away which are made untimed.
func detach(name string, boxes int, remove func(context.Context, *host, []link.Link) error) *contender {
	return &contender{name: name, round: func(ctx context.Context, i int) (time.Duration, error) {
		if i < warmUp-1 {
			return 0, nil // one round is warm-up enough: it takes seconds
		}
		if err := settle(ctx); err != nil {
			return 0, err
		}
		h, err := newHost(ctx)
		if err != nil {
			return 0, err
		}
		defer h.close()
		spaces, links, err := plugMany(ctx, h, boxes)
		if err != nil {
			return 0, err
		}
		d, err := took(func() error {
			if err := remove(ctx, h, links); err != nil {
				return err
			}
			for _, ns := range spaces {
				if err := ns.Close(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		left, err := h.handle.LinkList()
		if err == nil && len(left) != 2 { // lo and the bridge
			err = fmt.Errorf("%d links are left, want 2", len(left))
		}
		return d / time.Duration(boxes), err
	}}
}

// plugMany makes boxes on the host's bridge, and returns them and the bridge's ports.
func plugMany(ctx context.Context, h *host, boxes int) (spaces []*netns.NS, links []link.Link, err error) {
	spaces = make([]*netns.NS, boxes)
	for j := range boxes {
		if spaces[j], err = netns.New(ctx); err == nil {
			err = plug(ctx, h, spaces[j], j)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	links, err = link.List(ctx, h.ns, link.Filter{Master: link.Ref{Index: h.bridge}})
	if err == nil && len(links) != boxes {
		err = fmt.Errorf("%d ports, want %d", len(links), boxes)
	}
	return spaces, links, err
}
