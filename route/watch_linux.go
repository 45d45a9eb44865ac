package route

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

const groupNextHop = 32 // RTNLGRP_NEXTHOP

// Watch yields the routes that the filter chooses, Synced, and then what changes,
// until the loop ends or ctx does; the last item has the error then. When the
// kernel had to drop events it yields Resync, and the present state again.
//
// The kernel takes IPv4 routes away in silence when their link goes down or away,
// when their address does, or their next-hop object, and marks hops as dead and
// alive again. Watch sees those happen, and resyncs if they may concern a route
// that it has told of. A route that is
// replaced is Changed; for IPv6, a hop that comes to a multipath route is told as
// the whole route, a hop that goes as that hop alone.
//
// A change that happened while the state was read may be told although the state
// shows it already.
func Watch(ctx context.Context, ns *netns.NS, f Filter) iter.Seq2[Event[Route], error] {
	groups := []uint32{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, groupNextHop}
	switch f.Family {
	case IPv4:
		groups = slices.Delete(groups, 1, 2)
	case IPv6:
		groups = groups[1:2]
	}
	return watch(ctx, ns, "route.Watch", "routes", groups, f.check(), func() (table[Route], decoder[Route]) {
		w := &watcher{filter: f}
		return func(ctx context.Context) ([]Route, error) {
			if err := settle(ctx, ns); err != nil {
				return nil, err
			}
			routes, err := list(ctx, ns, f)
			w.begin(routes)
			return routes, err
		}, w.decode
	})
}

// WatchRules is [Watch] for the rules of a family, or with 0 of both.
func WatchRules(ctx context.Context, ns *netns.NS, f Family) iter.Seq2[Event[Rule], error] {
	groups := []uint32{unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE}
	switch f {
	case IPv4:
		groups = groups[:1]
	case IPv6:
		groups = groups[1:]
	}
	return watch(ctx, ns, "route.WatchRules", "rules", groups, f.check(), func() (table[Rule], decoder[Rule]) {
		return func(ctx context.Context) ([]Rule, error) { return listRules(ctx, ns, f) }, func(m nl.Message, r *Rule) (bool, error) {
			if m.Type != unix.RTM_NEWRULE && m.Type != unix.RTM_DELRULE {
				return false, nil
			}
			return decodeRule(m.Body, r)
		}
	})
}

// WatchNextHops is [Watch] for next-hop objects (>= 5.3). Objects go in silence
// with their link; the watch resyncs then. The events of a group's buckets are
// not told.
func WatchNextHops(ctx context.Context, ns *netns.NS) iter.Seq2[Event[NextHop], error] {
	groups := []uint32{groupNextHop, unix.RTNLGRP_LINK}
	return watch(ctx, ns, "route.WatchNextHops", "next hops", groups, nil, func() (table[NextHop], decoder[NextHop]) {
		w := &hopWatcher{devs: map[int]bool{}}
		return func(ctx context.Context) ([]NextHop, error) {
			if err := settle(ctx, ns); err != nil {
				return nil, err
			}
			hops, err := listNextHops(ctx, ns, NextHopFilter{})
			clear(w.devs)
			for _, n := range hops {
				w.devs[n.Dev] = true
			}
			return hops, err
		}, w.decode
	})
}

// table reads what is there, decoder the item in a message of one of the groups.
type (
	table[T any]   func(context.Context) ([]T, error)
	decoder[T any] func(nl.Message, *T) (ok bool, err error)
)

// watch follows a table. start is called for each loop over the sequence.
func watch[T Route | Rule | NextHop](ctx context.Context, ns *netns.NS, op, subject string, groups []uint32, bad error,
	start func() (table[T], decoder[T]),
) iter.Seq2[Event[T], error] {
	return func(yield func(Event[T], error) bool) {
		state, decode := start()
		src := nl.Source[Event[T]]{
			Subscribe: func() (*nl.Events, error) {
				switch {
				case bad != nil:
					return nil, bad
				case ns == nil:
					return nil, errNoNamespace
				}
				return ns.Subscribe(ctx, unix.NETLINK_ROUTE, nl.EventConfig{Groups: groups})
			},
			State: func(ctx context.Context) ([]Event[T], error) {
				items, err := state(ctx)
				events := make([]Event[T], len(items))
				for i := range items {
					events[i] = Event[T]{Kind: Present, Item: items[i]}
				}
				return events, err
			},
			Decode: func(_ int, m nl.Message) (e Event[T], ok bool, err error) {
				e.Kind = Changed
				if m.Type&3 == 1 { // RTM_DEL*: the second of each four
					e.Kind = Deleted
				}
				ok, err = decode(m, &e.Item)
				return e, ok, err
			},
			Synced: Event[T]{Kind: Synced},
			Resync: Event[T]{Kind: Resync},
		}
		for e, err := range nl.Follow(ctx, src) {
			if !yield(e, fail.New(op, ns, subject, err)) {
				return
			}
		}
	}
}

// hopWatcher knows which links the next hops told of depend on.
type hopWatcher struct {
	links links
	devs  map[int]bool
}

func (w *hopWatcher) decode(m nl.Message, n *NextHop) (bool, error) {
	switch m.Type {
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		err := decodeNextHop(m.Body, n)
		w.devs[n.Dev] = true
		return true, err
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if dev, changed := w.links.changed(m); changed && w.devs[dev] {
			return false, nl.ErrOverflow
		}
	}
	return false, nil
}

// watcher knows which links and next-hop objects the routes told of depend on.
type watcher struct {
	filter Filter
	links  links
	devs   map[int]bool
	hops   map[uint32]bool
}

func (w *watcher) begin(routes []Route) {
	w.devs, w.hops = map[int]bool{}, map[uint32]bool{}
	for i := range routes {
		w.add(&routes[i])
	}
}

func (w *watcher) add(r *Route) {
	if !r.is4() {
		return // IPv6 tells of every route that goes
	}
	w.devs[r.Dev] = true
	for _, h := range r.Hops {
		w.devs[h.Dev] = true
	}
	if r.NextHop != 0 {
		w.hops[r.NextHop] = true
	}
}

// decode reads a route, or the reason to read them all again.
func (w *watcher) decode(m nl.Message, r *Route) (bool, error) {
	switch m.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		ok, err := decode(m.Body, r, &w.filter)
		if ok && m.Type == unix.RTM_NEWROUTE {
			w.add(r)
		}
		return ok, err
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// A route with a next-hop object does not say by which link it goes.
		if dev, changed := w.links.changed(m); changed && (w.devs[dev] || len(w.hops) > 0) {
			return false, nl.ErrOverflow
		}
	case unix.RTM_DELADDR:
		if len(m.Body) < unix.SizeofIfAddrmsg || len(w.devs) == 0 {
			return false, nil
		}
		return false, nl.ErrOverflow
	case unix.RTM_DELNEXTHOP:
		var n NextHop
		if err := decodeNextHop(m.Body, &n); err != nil || !w.hops[n.ID] {
			return false, err
		}
		return false, nl.ErrOverflow
	}
	return false, nil
}

// links knows how links were: up with a carrier (0, also of one never seen), up
// without, or down.
type links map[int]int

// changed reports whether a message tells that a link is no longer as it was.
func (l *links) changed(m nl.Message) (dev int, changed bool) {
	if len(m.Body) < unix.SizeofIfInfomsg || m.Body[0] != unix.AF_UNSPEC {
		return 0, false
	}
	dev = int(binary.NativeEndian.Uint32(m.Body[4:]))
	flags := binary.NativeEndian.Uint32(m.Body[8:])
	state := 0
	switch {
	case m.Type == unix.RTM_DELLINK || flags&unix.IFF_UP == 0:
		state = 2
	case flags&(unix.IFF_RUNNING|unix.IFF_LOWER_UP) == 0:
		state = 1
	}
	if *l == nil {
		*l = links{}
	}
	changed = state != (*l)[dev]
	(*l)[dev] = state
	return dev, changed
}

// settle waits for changes of links that are under way: the kernel tells of a
// link that goes down before it takes the routes away, and holds its lock all the
// while.
func settle(ctx context.Context, ns *netns.NS) error {
	conn, err := open(ns)
	if err != nil {
		return err
	}
	return conn.Call(ctx, settled(), nil)
}

// settled is a request that waits for the kernel's lock (rtnl_lock), and so for
// changes under way and what is told of them: it asks for lo.
func settled() nl.Request {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], 1)
	return nl.Request{Type: unix.RTM_GETLINK, Body: b}
}
