package route

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// watcher holds the routes that a watch has reported, and knows what they depend on. It
// turns an event of the kernel into changes of those routes. If the meaning of an event is
// not certain, it returns ErrOverflow, and the table is read again.
type watcher struct {
	filter  Filter
	started bool
	links   links
	yielded map[key][]Route
	many    map[key]bool // there are others of the key, which the filter does not choose
	hidden  map[key]bool // a list may lack some of the key; see join
	devs    map[int]bool
	down    map[int]bool // the devs by which some are dead or without a carrier
	hops    map[uint32]bool
	srcs    map[netip.Addr]bool
	has4    bool
}

// narrow says whether some routes of a key may be chosen and others not.
func (w *watcher) narrow() bool {
	return w.filter.Protocol != 0 || w.filter.Dev != 0 || w.filter.Type != 0
}

// read reads the table. It reads more than the filter chooses: what replaces a
// route replaces the first of its key, so that it counts how many there are.
func (w *watcher) read(ctx context.Context, ns *netns.NS) (all []Route, err error) {
	conn, err := open(ns)
	if err != nil {
		return nil, err
	}
	if w.links, err = readLinks(ctx, conn); err != nil {
		return nil, err
	}
	if _, there := w.links[w.filter.Dev]; w.filter.Dev != 0 && !there && !w.started {
		return nil, &nl.Error{Errno: unix.ENODEV}
	}
	wide := Filter{Family: w.filter.Family, Table: w.filter.Table}
	var r Route
	err = eachFamily(wide, func(af uint8) error {
		begin := len(all)
		many := map[key]bool{}
		var last key
		var lastTold bool
		again := func() {
			clear(many)
			all, last, lastTold = all[:begin], key{}, false
		}
		err := conn.DumpGuarded(ctx, dump(af, wide), newGuard(af, wide), again, func(m nl.Message) error {
			ok, chosen, err := decodeFor(m.Body, &r, &w.filter)
			if !ok || err != nil || !wide.match(&r) {
				return err
			}
			if chosen {
				all = append(all, r)
			}
			k := r.key() // those of one key follow each other
			if k == last && (chosen || lastTold) {
				many[k] = true
			}
			last, lastTold = k, chosen || k == last && lastTold
			return nil
		})
		maps.Copy(w.many, many)
		return err
	})
	if err != nil {
		return nil, err
	}
	w.started = true
	return all, nil
}

// begin forgets what was reported and reads the present state.
func (w *watcher) begin(ctx context.Context, ns *netns.NS) ([]Route, error) {
	*w = watcher{
		filter: w.filter, started: w.started, hidden: w.hidden, yielded: map[key][]Route{}, many: map[key]bool{}, devs: map[int]bool{}, down: map[int]bool{},
		hops: map[uint32]bool{}, srcs: map[netip.Addr]bool{},
	}
	all, err := w.read(ctx, ns)
	for i := range all {
		w.hold(all[i], true)
	}
	return all, err
}

// hold stores a reported route, behind or before the others of its key.
func (w *watcher) hold(r Route, behind bool) {
	k := r.key()
	if behind {
		w.yielded[k] = append(w.yielded[k], r)
	} else {
		w.yielded[k] = slices.Insert(w.yielded[k], 0, r)
	}
	w.has4 = w.has4 || r.is4()
	for _, h := range r.asHops() {
		w.devs[h.Dev] = true
		if (h.Flags|r.Flags)&(FlagDead|FlagLinkDown) != 0 {
			w.down[h.Dev] = true
		}
	}
	if r.NextHop != 0 {
		w.hops[r.NextHop] = true
	}
	if r.Src.IsValid() {
		w.srcs[r.Src] = true
	}
}

// decode reads what a message means, or the reason to read all again.
func (w *watcher) decode(m nl.Message) ([]Event[Route], error) {
	switch m.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return w.route(m)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// A route with a next-hop object does not say by which link it goes.
		dev, was, is := w.links.update(m)
		// One flag of a carrier that comes is there before the routes are alive.
		alive := was.flags != is.flags && (w.down[dev] || w.down[0])
		if (was.carries != is.carries || alive) && (w.devs[dev] || len(w.hops) > 0) {
			return nil, nl.ErrOverflow
		}
	case unix.RTM_DELADDR:
		a := readAddr(m)
		if a.Is4() && w.has4 || w.srcs[a] {
			return nil, nl.ErrOverflow
		}
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		var n NextHop
		if err := decodeNextHop(m.Body, &n); err != nil {
			return nil, err
		}
		// A member of a group that is replaced changes the group's routes, too.
		uses := len(w.hops) > 0 || w.filter.Dev != 0 || w.filter.Type != 0
		if w.hops[n.ID] || m.Type == unix.RTM_NEWNEXTHOP && m.Flags&unix.NLM_F_REPLACE != 0 && uses {
			return nil, nl.ErrOverflow
		}
	}
	return nil, nil
}

func (w *watcher) route(m nl.Message) ([]Event[Route], error) {
	var r Route
	ok, chosen, err := decodeFor(m.Body, &r, &w.filter)
	wide := Filter{Family: w.filter.Family, Table: w.filter.Table}
	if !ok || err != nil || !wide.match(&r) {
		return nil, err
	}
	c := change{w: w, key: r.key(), flags: m.Flags, route: &r, chosen: chosen}
	if w.hidden[c.key] {
		return nil, nl.ErrOverflow
	}
	if m.Type == unix.RTM_DELROUTE {
		err = c.gone()
	} else {
		err = c.came()
	}
	return c.events, err
}

// change is one event of the kernel on its way to those of the watch.
type change struct {
	w      *watcher
	key    key
	flags  uint16 // NLM_F_*: how it came to be
	route  *Route
	chosen bool
	events []Event[Route]
}

// drop reports that a route is gone which was reported before.
func (c *change) drop(i int) {
	held := c.w.yielded[c.key]
	c.events = append(c.events, Event[Route]{Kind: EventDeleted, Item: held[i]})
	if held = slices.Delete(held, i, i+1); len(held) == 0 {
		delete(c.w.yielded, c.key)
	} else {
		c.w.yielded[c.key] = held
	}
}

// report yields a route if the filter selects it.
func (c *change) report(r Route, chosen, behind bool) {
	if chosen {
		c.w.hold(r, behind)
		c.events = append(c.events, Event[Route]{Kind: EventChanged, Item: r})
	}
}

// find returns the place of the route among those reported, or -1. It ignores the time that
// is left of Expires.
func (c *change) find() int {
	return slices.IndexFunc(c.w.yielded[c.key], func(held Route) bool {
		held.Expires = c.route.Expires
		return held.Equal(*c.route)
	})
}

// came is a route that was added, or replaced another. NLM_F_EXCL says that it is
// the only one of its key.
func (c *change) came() error {
	if i := c.find(); i >= 0 {
		held := &c.w.yielded[c.key][i]
		if held.Flags != c.route.Flags || held.Expires != c.route.Expires {
			*held = *c.route
			c.events = append(c.events, Event[Route]{Kind: EventChanged, Item: *c.route})
		}
		return nil
	}
	if c.flags&unix.NLM_F_EXCL != 0 {
		for range c.w.yielded[c.key] {
			c.drop(0)
		}
		delete(c.w.many, c.key)
		c.report(*c.route, c.chosen, true)
		return nil
	}
	if c.route.is4() {
		return c.came4()
	}
	return c.came6()
}

// came4 follows fib_table_insert: the first of the key is replaced; what is not
// appended stands before the others.
func (c *change) came4() error {
	held := len(c.w.yielded[c.key])
	replaces := c.flags&unix.NLM_F_REPLACE != 0
	switch {
	case replaces && held > 0 && c.w.narrow() && (held > 1 || c.w.many[c.key]):
		return nl.ErrOverflow
	case replaces && held > 0:
		c.drop(0)
		c.report(*c.route, c.chosen, false)
		return nil
	case held > 0 || c.chosen: // others stay beside it
		c.w.many[c.key] = true
	}
	c.report(*c.route, c.chosen, c.flags&unix.NLM_F_APPEND != 0)
	return nil
}

// came6 follows fib6_add_rt2node: routes with a gateway are hops of one, and a
// route replaces the first that is likewise.
func (c *change) came6() error {
	held := c.w.yielded[c.key]
	alike := func(o Route) bool { return o.joinable() == c.route.joinable() }
	i := slices.IndexFunc(held, alike)
	replaces, joins := c.flags&unix.NLM_F_REPLACE != 0, c.route.joinable()
	switch {
	case len(held) == 0 && c.w.narrow() && len(c.route.Hops) > 0 && !replaces:
		return nl.ErrOverflow // it may have joined a route that was not yielded
	case replaces && i < 0 && len(held) > 0:
		return nl.ErrOverflow
	case replaces && i >= 0 && !joins && (slices.ContainsFunc(held[i+1:], alike) || c.w.narrow() && c.w.many[c.key]):
		return nl.ErrOverflow
	case replaces && i >= 0:
		c.drop(i)
	case !replaces && joins && i >= 0:
		return c.join(i)
	case !replaces && joins && len(held) > 0 && len(c.route.Hops) > 0 && c.w.narrow():
		return nl.ErrOverflow
	}
	if c.chosen || len(held) > 0 {
		c.w.many[c.key] = c.w.many[c.key] || !c.route.joinable() || !replaces
	}
	c.report(*c.route, c.chosen, true)
	return nil
}

// join adds a hop to the route that was reported at a place. The kernel's event has the
// whole route, with the new hop first, but a list has that hop last. A list resumes behind
// the last hop (fib6_dump_node): if it stops between two hops, it lacks the new one and is
// not marked.
func (c *change) join(i int) error {
	was := c.w.yielded[c.key][i]
	hops := c.route.Hops
	if len(c.w.yielded[c.key]) > 1 || c.w.narrow() && c.w.many[c.key] {
		c.w.hidden[c.key] = true
		return nl.ErrOverflow
	}
	if len(hops) < 2 {
		return nl.ErrOverflow
	}
	hops = append(slices.Clone(hops[1:]), hops[0])
	if !slices.EqualFunc(hops[:len(hops)-1], was.asHops(), Hop.equal) {
		return nl.ErrOverflow
	}
	is := was.withHops(hops)
	is.Flags = c.route.Flags
	c.drop(i)
	c.report(is, c.w.filter.match(&is), true)
	return nil
}

// gone is a route that went, or one hop of an IPv6 route.
func (c *change) gone() error {
	if i := c.find(); i >= 0 {
		c.drop(i)
		return nil
	}
	if c.route.is4() || !c.route.joinable() {
		return nil
	}
	i := slices.IndexFunc(c.w.yielded[c.key], func(o Route) bool { return o.joinable() && len(o.Hops) > 1 })
	if i < 0 {
		return nil
	}
	was, left := c.w.yielded[c.key][i], []Hop(nil)
	for _, h := range was.Hops {
		if !slices.ContainsFunc(c.route.asHops(), func(o Hop) bool { return o.Via == h.Via && o.Dev == h.Dev }) {
			left = append(left, h)
		}
	}
	switch {
	case len(left) == len(was.Hops):
		return nil
	case len(left) == 0 || !left[0].equal(was.Hops[0]):
		return nl.ErrOverflow // what the first hop says of the route goes with it
	}
	is := was.withHops(left)
	c.drop(i)
	c.report(is, c.w.filter.match(&is), true)
	return nil
}

// asHops returns where the route leads as hops of a multipath route.
func (r *Route) asHops() []Hop {
	if len(r.Hops) > 0 {
		return r.Hops
	}
	return []Hop{{Via: r.Via, Dev: r.Dev, OnLink: r.OnLink, Weight: 1, Encap: r.Encap, Realm: r.Realm, Flags: r.Flags}}
}

// withHops returns the route with other hops; with one it is a plain route.
func (r Route) withHops(hops []Hop) Route {
	r.Via, r.Dev, r.OnLink, r.Encap, r.Hops = netip.Addr{}, 0, false, nil, hops
	if len(hops) == 1 {
		h := hops[0]
		r.Via, r.Dev, r.OnLink, r.Encap, r.Flags, r.Hops = h.Via, h.Dev, h.OnLink, h.Encap, h.Flags, nil
	}
	return r
}

// decodeFor is decode for a caller that also needs the routes that the filter does not
// select.
func decodeFor(b []byte, r *Route, f *Filter) (ok, chosen bool, err error) {
	cached, ok, err := decodeAny(b, r)
	if !ok || err != nil || cached {
		return false, false, err
	}
	chosen = f.match(r)
	r.tidy()
	return true, chosen, nil
}

// readAddr reads the address in an RTM_DELADDR message, IFA_LOCAL for IPv4.
func readAddr(m nl.Message) (a netip.Addr) {
	if len(m.Body) < unix.SizeofIfAddrmsg {
		return a
	}
	w := nl.Walk(m.Body[unix.SizeofIfAddrmsg:])
	for w.Next() {
		if w.Type() == unix.IFA_ADDRESS {
			a = addrOf(m.Body[0], w.Data())
		}
	}
	return a
}
