package topology

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// How Watch shares the machine with what it watches.
const (
	settle   = 5 * time.Millisecond // to take changes that come together as one
	poll     = time.Second          // for what the kernel has no events of
	pollPart = 20                   // at most one part of so many of the time goes into that
)

// Watch yields a snapshot, and another one whenever the machine has changed. A snapshot that it has
// yielded does not change any more.
//
// The kernel reports changes of links, addresses, routes and firewalls of all namespaces that have an
// id in the host's (ip-netns(8), list-id), as those have that are wired to it. Watch reads again what an
// event is about, and holds no namespace open meanwhile. Processes, sockets that wait for connections
// and namespaces without an id have no events. These Watch reads every second, or less often where that
// takes more than a twentieth of the time. Without CAP_NET_BROADCAST, or CAP_NET_ADMIN for firewalls, it
// reads in the same way what it gets no events of.
func Watch(ctx context.Context, opts Options) iter.Seq2[*Snapshot, error] {
	return func(yield func(*Snapshot, error) bool) {
		r, err := newReader(opts)
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.close()
		w := watcher{r: r, hints: make(chan hint, 64)}
		ctx, stop := context.WithCancel(ctx)
		w.run(ctx, yield)
		stop()
		w.followers.Wait()
	}
}

// A watcher follows the machine.
type watcher struct {
	r     *reader
	hints chan hint
	blind part      // what it gets no events of
	ended bool      // the loop over the snapshots
	read  time.Time // when what was marked had been read

	followers sync.WaitGroup
}

// A hint says that something of a namespace may have changed.
type hint struct {
	id   int // the namespace, by the id that the host knows it by
	what part
	nsid int  // an id that the namespace has given to another one, or taken back; NoID for none
	gone bool // taken back, because that one has ended
	left bool // a link has left the namespace
	link int  // the index of a link that has changed, or has come
	lost bool // there were more hints
	fail error
}

func (w *watcher) run(ctx context.Context, yield func(*Snapshot, error) bool) {
	// Events come first, so that none is lost between the first snapshot and them.
	w.listen(ctx)
	if err := w.r.scan(ctx); err != nil {
		yield(nil, err)
		return
	}
	w.publish(ctx, yield)
	next := time.NewTimer(poll)
	defer next.Stop()
	for !w.ended {
		select {
		case <-ctx.Done():
			yield(nil, ctx.Err())
			return
		case h := <-w.hints:
			began := time.Now()
			if err := w.take(ctx, h); err != nil {
				yield(nil, err)
				return
			}
			w.publish(ctx, yield)
			w.rest(ctx, w.read.Sub(began)-settle)
		case <-next.C:
			began := time.Now()
			if err := w.r.scan(ctx); err != nil {
				yield(nil, err)
				return
			}
			w.markSilent()
			w.publish(ctx, yield)
			next.Reset(max(poll, pollPart*w.read.Sub(began)))
		}
	}
}

// markSilent marks what there are no events of.
func (w *watcher) markSilent() {
	w.r.wanted, w.r.unheard = w.r.unheard, nil
	heard := map[uint64]bool{w.r.host.ID().Ino: true}
	if host := w.r.spaces[w.r.host.ID().Ino]; host != nil {
		for _, inode := range host.ids {
			heard[inode] = true
		}
	}
	for inode, x := range w.r.spaces {
		x.dirty |= partListeners | w.blind
		if !heard[inode] || w.blind&partLinks != 0 {
			x.dirty, x.ids = partAll, nil
		}
	}
}

// publish reads what is marked, and yields a snapshot if that has changed anything.
func (w *watcher) publish(ctx context.Context, yield func(*Snapshot, error) bool) {
	w.r.refresh(ctx)
	w.read = time.Now()
	changed := w.r.changed
	for _, x := range w.r.spaces {
		changed = changed || x.changed
		x.changed = false
	}
	w.r.changed = false
	if changed && ctx.Err() == nil && !yield(w.r.snapshot(), nil) {
		w.ended = true
	}
}

// rest leaves as much time to others as the last change took.
func (w *watcher) rest(ctx context.Context, took time.Duration) {
	if w.ended {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(max(0, took)):
	}
}

// take marks what a hint says, and what others say that come soon after it.
func (w *watcher) take(ctx context.Context, h hint) error {
	scan := false
	for soon := time.After(settle); ; {
		if h.fail != nil {
			return h.fail
		}
		scan = w.mark(h) || scan
		select {
		case h = <-w.hints:
			continue
		case <-ctx.Done():
		case <-soon:
		}
		break
	}
	if scan {
		return w.r.scan(ctx)
	}
	return nil
}

// mark marks what a hint says. It reports whether the namespaces have to be listed.
func (w *watcher) mark(h hint) (scan bool) {
	r := w.r
	if h.lost {
		for _, x := range r.spaces {
			x.dirty, x.ids, x.none = partAll, nil, nil
		}
		return true
	}
	host := r.spaces[r.host.ID().Ino]
	if host == nil {
		return false
	}
	x := host
	if h.id != nl.NoID {
		// Before Linux 5.15 it may be the host itself, by an id that it has given itself.
		x = r.spaces[host.ids[h.id]]
	}
	switch {
	case x == nil && r.unheard[h.id]:
		return false // left to be read now and then
	case x == nil:
		r.want(host, h.id)
		return true
	case h.nsid == nl.NoID:
		x.dirty |= h.what
		if x != host && (h.left || h.link != 0 && !x.has(h.link)) {
			host.dirty |= partLinks
			r.markPeers(x)
		}
		return false
	case x != host && h.gone:
		delete(x.ids, h.nsid)
		x.dirty |= partLinks
		return true
	case h.gone:
		// Another namespace may have the inode number by now, and the id.
		if gone := host.ids[h.nsid]; gone != 0 && gone != host.info.ID.Ino {
			delete(r.spaces, gone)
			r.changed = true
		}
		delete(host.ids, h.nsid)
		delete(r.wanted, h.nsid)
	}
	if x == host {
		delete(r.unheard, h.nsid)
	}
	if x == host && !h.gone {
		r.want(host, h.nsid) // what the namespace has changed before it had an id came with no event
	}
	return x == host
}

// want has the namespace that the host knows by an id looked for, and read.
func (r *reader) want(host *space, id int) {
	if r.wanted == nil {
		r.wanted = make(map[int]bool)
	}
	r.wanted[id] = true
	host.none = nil
}

// has reports whether a namespace had a link of an index when its links were read.
func (x *space) has(index int) bool {
	return slices.ContainsFunc(x.links, func(l rtnl.Link) bool { return l.Index == index })
}

// markPeers marks the links of the namespaces that know one: of a pair whose other end moves from one
// namespace to another, the end that stays has no event.
func (r *reader) markPeers(x *space) {
	for _, y := range r.spaces {
		for _, inode := range y.ids {
			if inode == x.info.ID.Ino {
				y.dirty |= partLinks
			}
		}
	}
}

// listen begins to receive events. What there are none of is left to be read now and then.
func (w *watcher) listen(ctx context.Context) {
	routes := []uint32{
		unix.RTNLGRP_NSID, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	}
	w.follow(ctx, unix.NETLINK_ROUTE, routes, partLinks|partRoutes, routeHint)
	if w.r.opts.Firewall != nil {
		w.follow(ctx, unix.NETLINK_NETFILTER, []uint32{unix.NFNLGRP_NFTABLES}, partFirewall, firewallHint)
	}
}

// follow hands on what the events of a netlink family hint at: of all namespaces that the host has an
// id of, if the caller may, or of the host alone.
func (w *watcher) follow(ctx context.Context, family int, groups []uint32, about part, decode func(int, nl.Message) (hint, bool)) {
	cfg := nl.EventConfig{Groups: groups, AllIDs: true}
	events, err := nsconn.Subscribe(ctx, w.r.host, family, cfg)
	if errors.Is(err, os.ErrPermission) {
		w.blind |= about
		cfg.AllIDs = false
		events, err = nsconn.Subscribe(ctx, w.r.host, family, cfg)
	}
	if err != nil {
		w.blind |= about
		return
	}
	src := nl.Source[hint]{
		Subscribe: func() (*nl.Events, error) { return events, nil },
		State:     func(context.Context) ([]hint, error) { return nil, nil },
		Decode: func(id int, m nl.Message) (hint, bool, error) {
			h, ok := decode(id, m)
			return h, ok, nil
		},
		Synced: hint{id: nl.NoID, nsid: nl.NoID},
		Resync: hint{id: nl.NoID, lost: true},
	}
	w.followers.Go(func() {
		for h, err := range nl.Follow(ctx, src) {
			if err != nil {
				h = hint{id: nl.NoID, fail: err}
			}
			select {
			case w.hints <- h:
			case <-ctx.Done():
				return
			}
		}
	})
}

// routeHint is what an event of NETLINK_ROUTE hints at.
func routeHint(id int, m nl.Message) (hint, bool) {
	h := hint{id: id, nsid: nl.NoID}
	switch m.Type {
	case unix.RTM_NEWNSID, unix.RTM_DELNSID:
		if len(m.Body) < 4 { // struct rtgenmsg, padded
			return h, false
		}
		for a := nl.Walk(m.Body[4:]); a.Next(); {
			if a.Type() == unix.NETNSA_NSID && len(a.Data()) >= 4 {
				h.nsid = int(int32(a.U32()))
			}
		}
		h.gone = m.Type == unix.RTM_DELNSID
		return h, h.nsid != nl.NoID
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
		h.what = partLinks | partRoutes // routes go with their links and addresses without an event
		h.left = m.Type == unix.RTM_DELLINK
		if m.Type == unix.RTM_NEWLINK && len(m.Body) >= unix.SizeofIfInfomsg {
			h.link = int(int32(binary.NativeEndian.Uint32(m.Body[4:])))
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		h.what = partRoutes
	}
	return h, h.what != 0
}

// firewallHint is what an event of nftables hints at.
func firewallHint(id int, _ nl.Message) (hint, bool) {
	return hint{id: id, nsid: nl.NoID, what: partFirewall}, true
}
