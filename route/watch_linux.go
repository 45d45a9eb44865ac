package route

import (
	"context"
	"iter"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

const groupNextHop = 32 // RTNLGRP_NEXTHOP

// Watch yields the routes that the filter selects, EventSynced, and then the changes, until
// the loop or ctx ends. The last item has the error. If the kernel drops events, Watch
// yields EventResync and the present state again.
//
// A caller that keeps each route of EventPresent and EventChanged and removes each of
// EventDeleted has what [List] returns. [Route.Equal] identifies a route. A replaced route
// is deleted, and its replacement is changed if the filter selects it. The same holds for
// an IPv6 route that gains or loses a hop. A changed route that is Equal to an earlier one
// differs in Flags or in the time that is left of Expires.
//
// The kernel changes routes without an event when their link goes down or is deleted, when
// its carrier changes, when an address is deleted, and with their next-hop object. Watch
// also follows those events, and resyncs if one may affect a route that it has reported. It
// also resyncs if an event does not say which of several routes of one destination it is
// about.
//
// A Watch is of one namespace; to follow many, begin one for each (see the example). There
// is no counterpart of link.WatchAll. The kernel sends the events of routes of all
// namespaces with an id to one socket (NETLINK_LISTEN_ALL_NSID), but it lists routes of the
// socket's own namespace only, and has no list by id as it has for links. Without the list,
// events do not say what is there: the kernel deletes IPv4 routes with their link, and all
// routes of a namespace that ends, without an event. To list them, a handle has to be found
// among those of all processes ([netns.NS.OpenNSID]) for each such change, is not found
// where no process or name holds the namespace, and keeps the namespace from ending while it
// is open.
func Watch(ctx context.Context, ns *netns.NS, f Filter) iter.Seq2[Event[Route], error] {
	var groups []uint32
	if f.Family != IPv6 {
		groups = append(groups, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_IFADDR)
	}
	if f.Family != IPv4 {
		groups = append(groups, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_IFADDR)
	}
	groups = append(groups, unix.RTNLGRP_LINK, groupNextHop)
	return watch(ctx, ns, "route.Watch", "routes", groups, f.check(), func() follower[Route] { return &watcher{filter: f, many: map[key]bool{}, hidden: map[key]bool{}} })
}

// WatchRules is [Watch] for the rules of a family, or with 0 of both. The kernel sends no
// event when a rule becomes Detached or attached: the link that it names comes, goes or is
// renamed, or the rule that it leads to comes or goes. The watch then resyncs.
func WatchRules(ctx context.Context, ns *netns.NS, f Family) iter.Seq2[Event[Rule], error] {
	groups := []uint32{unix.RTNLGRP_LINK}
	if f != IPv6 {
		groups = append(groups, unix.RTNLGRP_IPV4_RULE)
	}
	if f != IPv4 {
		groups = append(groups, unix.RTNLGRP_IPV6_RULE)
	}
	return watch(ctx, ns, "route.WatchRules", "rules", groups, checkFamily(f), func() follower[Rule] { return &ruleWatcher{family: f} })
}

// WatchNextHops is [Watch] for next-hop objects (>= 5.3). The ID identifies an object. The
// kernel deletes objects together with their link and sends no event; the watch then
// resyncs. Events of a group's buckets are not reported.
func WatchNextHops(ctx context.Context, ns *netns.NS) iter.Seq2[Event[NextHop], error] {
	groups := []uint32{groupNextHop, unix.RTNLGRP_LINK}
	return watch(ctx, ns, "route.WatchNextHops", "next hops", groups, nil, func() follower[NextHop] { return &hopWatcher{} })
}

// A follower follows one table: begin reads it, decode says what a message of one
// of the groups means for it.
type follower[T Route | Rule | NextHop] interface {
	begin(context.Context, *netns.NS) ([]T, error)
	decode(nl.Message) ([]Event[T], error)
}

// watch follows a table. start is called for each loop over the sequence.
func watch[T Route | Rule | NextHop](ctx context.Context, ns *netns.NS, op, subject string, groups []uint32, bad error,
	start func() follower[T],
) iter.Seq2[Event[T], error] {
	return func(yield func(Event[T], error) bool) {
		w := start()
		src := nl.Source[[]Event[T]]{
			Subscribe: func() (*nl.Events, error) {
				switch {
				case bad != nil:
					return nil, bad
				case ns == nil:
					return nil, errNoNamespace
				}
				return nsconn.Subscribe(ctx, ns, unix.NETLINK_ROUTE, nl.EventConfig{Groups: groups})
			},
			State: func(ctx context.Context) ([][]Event[T], error) {
				conn, err := open(ns)
				if err == nil {
					err = settle(ctx, conn)
				}
				if err != nil {
					return nil, err
				}
				items, err := w.begin(ctx, ns)
				events := make([]Event[T], len(items))
				for i := range items {
					events[i] = Event[T]{Kind: EventPresent, Item: items[i]}
				}
				return [][]Event[T]{events}, err
			},
			Decode: func(_ int, m nl.Message) (events []Event[T], ok bool, err error) {
				events, err = w.decode(m)
				return events, len(events) > 0, err
			},
			Synced: []Event[T]{{Kind: EventSynced}},
			Resync: []Event[T]{{Kind: EventResync}},
		}
		for events, err := range nl.Follow(ctx, src) {
			if err != nil {
				yield(Event[T]{}, fail.New(op, ns, subject, err))
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// kindOf returns the kind of event that a message is.
func kindOf(m nl.Message) EventKind {
	if m.Type&3 == 1 { // RTM_DEL*: the second of each four
		return EventDeleted
	}
	return EventChanged
}

// hopWatcher knows which links the reported next hops depend on.
type hopWatcher struct {
	links links
	devs  map[int]bool
}

func (w *hopWatcher) begin(ctx context.Context, ns *netns.NS) (hops []NextHop, err error) {
	conn, err := open(ns)
	if err == nil {
		w.links, err = readLinks(ctx, conn)
	}
	if err != nil {
		return nil, err
	}
	hops, err = listNextHops(ctx, ns, NextHopFilter{})
	w.devs = map[int]bool{}
	for _, n := range hops {
		w.devs[n.Dev] = true
	}
	return hops, err
}

func (w *hopWatcher) decode(m nl.Message) ([]Event[NextHop], error) {
	switch m.Type {
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		e := Event[NextHop]{Kind: kindOf(m)}
		err := decodeNextHop(m.Body, &e.Item)
		w.devs[e.Item.Dev] = true
		return []Event[NextHop]{e}, err
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if dev, was, is := w.links.update(m); was.carries != is.carries && w.devs[dev] {
			return nil, nl.ErrOverflow
		}
	}
	return nil, nil
}

// ruleWatcher knows which links and rules the reported rules name.
type ruleWatcher struct {
	family Family
	links  links
	names  map[string]bool
	gotos  map[place]bool
}

// A place is a priority in the order of a family.
type place struct {
	family   Family
	priority uint32
}

func (w *ruleWatcher) begin(ctx context.Context, ns *netns.NS) (rules []Rule, err error) {
	conn, err := open(ns)
	if err == nil {
		w.links, err = readLinks(ctx, conn)
	}
	if err != nil {
		return nil, err
	}
	rules, err = listRules(ctx, ns, w.family)
	w.names, w.gotos = map[string]bool{}, map[place]bool{}
	for i := range rules {
		w.add(&rules[i])
	}
	return rules, err
}

func (w *ruleWatcher) add(r *Rule) {
	for _, name := range []string{r.IIF, r.OIF} {
		if name != "" {
			w.names[name] = true
		}
	}
	if r.Action == ActionGoto {
		w.gotos[place{r.Family, r.Goto}] = true
	}
}

func (w *ruleWatcher) decode(m nl.Message) ([]Event[Rule], error) {
	switch m.Type {
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		e := Event[Rule]{Kind: kindOf(m)}
		ok, err := decodeRule(m.Body, &e.Item)
		switch {
		case err != nil || !ok:
			return nil, err
		case w.gotos[place{e.Item.Family, e.Item.Priority}]:
			return nil, nl.ErrOverflow
		}
		w.add(&e.Item)
		return []Event[Rule]{e}, nil
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if _, was, is := w.links.update(m); was.name != is.name && (w.names[was.name] || w.names[is.name]) {
			return nil, nl.ErrOverflow
		}
	}
	return nil, nil
}
