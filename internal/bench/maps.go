package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/internal/topology/firewall"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

var mapReadRow = row{
	name: "map-read",
	work: "read a host with 300 boxes and 2,000 links as a map: links, addresses, routes, sockets that wait, firewalls, and what is wired to what",
	unit: "map",
	n:    20,
	run: func(ctx context.Context, b *bout) error {
		m, err := newMapped(ctx, b.size(300, 20), b.size(700, 40))
		if err != nil {
			return err
		}
		defer m.close()
		read := &contender{name: nameBoxwire, round: func(ctx context.Context, _ int) (time.Duration, error) {
			runtime.GC()
			return took(func() error { return m.read(ctx) })
		}}
		dumps := &contender{name: nameFloor, round: func(context.Context, int) (time.Duration, error) {
			runtime.GC()
			return took(m.dump)
		}}
		if err := b.interleave(ctx, b.n, read, dumps); err != nil {
			return err
		}
		b.atMost(nameBoxwire, nameFloor, 3)
		b.note("The floor opens the same sockets in each namespace and asks for the same tables, one after the other, and keeps nothing. It does not look for the namespaces: it has them.")
		return nil
	},
}

var mapEventRow = row{
	name: "map-event",
	work: "change the MTU of a box's link until a snapshot of a watch shows it",
	unit: "change",
	n:    100,
	run: func(ctx context.Context, b *bout) error {
		var all []*contender
		for _, boxes := range []int{30, b.size(1_000, 40)} {
			m, err := newMapped(ctx, boxes, 0)
			if err != nil {
				return err
			}
			defer m.close()
			w := m.watch(ctx)
			defer w.stop()
			all = append(all, &contender{name: fmt.Sprintf("%s boxes", thousands(boxes)), round: w.round})
		}
		if err := b.interleave(ctx, b.n, all...); err != nil {
			return err
		}
		for _, c := range all {
			b.claim(fmt.Sprintf("ms until a snapshot shows a change, %s", c.name), float64(median(b.figures[c.name]).Microseconds())/1000, 50, false)
		}
		b.note("A watch waits 5 ms for changes that come together, and rests after a change as long as it took.")
		return nil
	},
}

// mapped is a host with boxes on a bridge, and pairs that lead from the host to itself.
type mapped struct {
	host  *host
	boxes []*netns.NS
	ids   map[netns.ID]bool
}

func newMapped(ctx context.Context, boxes, pairs int) (m *mapped, err error) {
	m = &mapped{ids: make(map[netns.ID]bool)}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if m.host, err = newHost(ctx); err != nil {
		return m, err
	}
	m.ids[m.host.ns.ID()] = true
	for i := range boxes {
		box, err := netns.New(ctx)
		if err != nil {
			return m, err
		}
		m.boxes, m.ids[box.ID()] = append(m.boxes, box), true
		_, err = link.Create(ctx, m.host.ns, link.Spec{
			Name: hostLink(i), Up: true, Master: link.Ref{Index: m.host.bridge},
			Kind: link.Veth{Peer: link.Spec{NS: box, Name: "eth0", Up: true}},
		})
		if err != nil {
			return m, err
		}
	}
	for i := range pairs {
		_, err := link.Create(ctx, m.host.ns, link.Spec{Name: fmt.Sprintf("a%d", i), Kind: link.Veth{Peer: link.Spec{Name: fmt.Sprintf("b%d", i)}}})
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

func (m *mapped) close() {
	for _, box := range m.boxes {
		box.Close()
	}
	if m.host != nil {
		m.host.close()
	}
}

func (m *mapped) options() topology.Options {
	return topology.Options{Host: m.host.ns, Firewall: firewall.Read, Some: func(info netns.Info) bool { return m.ids[info.ID] }}
}

// read reads the map, and checks that all are on it.
func (m *mapped) read(ctx context.Context) error {
	s, err := topology.Read(ctx, m.options())
	if err != nil {
		return err
	}
	wired := 0
	for _, n := range s.Namespaces {
		for _, l := range n.Links {
			if l.Peer != nil && l.Peer.Inode != n.Inode {
				wired++
			}
		}
	}
	if len(s.Namespaces) != len(m.ids) || wired != 2*len(m.boxes) {
		return fmt.Errorf("%d of %d namespaces are on the map, and %d of %d ends lead elsewhere", len(s.Namespaces), len(m.ids), wired, 2*len(m.boxes))
	}
	return nil
}

// dumps are what a map needs of a namespace.
var dumps = func() map[int][][]byte {
	const skipStats = 8 // RTEXT_FILTER_SKIP_STATS
	routes := func(family byte) []byte {
		body := make([]byte, unix.SizeofRtMsg)
		body[0] = family
		return floor.Message(nil, unix.RTM_GETROUTE, unix.NLM_F_DUMP, body)
	}
	all := map[int][][]byte{
		unix.NETLINK_ROUTE: {
			floor.Message(nil, unix.RTM_GETLINK, unix.NLM_F_DUMP, nl.AppendU32(floor.IfInfo(0, false), unix.IFLA_EXT_MASK, skipStats)),
			floor.Message(nil, unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg)),
			routes(unix.AF_INET), routes(unix.AF_INET6),
		},
	}
	for _, typ := range []uint16{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN} {
		all[unix.NETLINK_NETFILTER] = append(all[unix.NETLINK_NETFILTER],
			floor.Message(nil, unix.NFNL_SUBSYS_NFTABLES<<8|typ, unix.NLM_F_DUMP, make([]byte, 4)))
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			body := make([]byte, 56) // struct inet_diag_req_v2
			body[0], body[1], body[4], body[5] = family, proto, 0xff, 0xff
			all[unix.NETLINK_SOCK_DIAG] = append(all[unix.NETLINK_SOCK_DIAG], floor.Message(nil, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, body))
		}
	}
	return all
}()

// dump asks each namespace for what a map needs.
func (m *mapped) dump() error {
	for _, ns := range append([]*netns.NS{m.host.ns}, m.boxes...) {
		err := within(ns, func() error {
			for _, family := range []int{unix.NETLINK_ROUTE, unix.NETLINK_SOCK_DIAG, unix.NETLINK_NETFILTER} {
				s, err := floor.Open(family)
				if err != nil {
					return err
				}
				for _, request := range dumps[family] {
					if _, err := s.Dump(request, func([]byte) {}); err != nil {
						s.Close()
						return err
					}
				}
				s.Close()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A watched is a map that is followed.
type watched struct {
	m         *mapped
	snapshots chan *topology.Snapshot
	cancel    context.CancelFunc
	failed    error
}

func (m *mapped) watch(ctx context.Context) *watched {
	w := &watched{m: m, snapshots: make(chan *topology.Snapshot)}
	ctx, w.cancel = context.WithCancel(ctx)
	go func() {
		defer close(w.snapshots)
		for s, err := range topology.Watch(ctx, m.options()) {
			if err != nil {
				w.failed = err
				return
			}
			select {
			case w.snapshots <- s:
			case <-ctx.Done():
				return
			}
		}
	}()
	return w
}

func (w *watched) stop() {
	w.cancel()
	for range w.snapshots {
	}
}

// round changes a box's link and waits for the snapshot that shows it.
func (w *watched) round(ctx context.Context, i int) (time.Duration, error) {
	box := w.m.boxes[i%len(w.m.boxes)]
	l, err := link.Get(ctx, box, "eth0")
	if err != nil {
		return 0, err
	}
	mtu := 1400 + i%100
	return took(func() error {
		if _, err := l.Update(ctx, link.Spec{MTU: mtu}); err != nil {
			return err
		}
		for {
			select {
			case s, ok := <-w.snapshots:
				if !ok {
					return w.failed
				}
				if n := s.Namespace(box.ID().Ino); n != nil && shows(n, mtu) {
					return nil
				}
			case <-time.After(10 * time.Second):
				return fmt.Errorf("no snapshot shows the change: %w", os.ErrDeadlineExceeded)
			}
		}
	})
}

// shows reports whether a box's link has an MTU.
func shows(n *topology.Namespace, mtu int) bool {
	for _, l := range n.Links {
		if l.Name == "eth0" && l.MTU == mtu {
			return true
		}
	}
	return false
}
