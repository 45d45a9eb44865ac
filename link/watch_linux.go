package link

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

// Watch yields the present state of the topics in the namespace, EventSynced,
// and then every change:
//
//	for e, err := range link.Watch(ctx, host, link.Links, link.Addrs) {
//		if err != nil {
//			return err
//		}
//		switch {
//		case e.Op == link.EventResync:
//			clear(links)
//		case e.Link != nil && e.Op == link.EventSet:
//			links[e.Link.Index] = *e.Link
//		case e.Link != nil && e.Op == link.EventGone:
//			delete(links, e.Link.Index)
//		}
//	}
//
// A reader that is too slow for the kernel's buffer loses events, never the
// state: it gets EventResync, the whole state as it is by then, and EventSynced
// again. A change that happens while the state is read may be told although the
// state shows it already; the last event about a thing tells how it is.
//
// The sequence ends when the loop does, or with an error, which is the last
// thing it yields: that of ctx, or what else went wrong. The namespace's handle
// has to stay open meanwhile.
func Watch(ctx context.Context, ns *netns.NS, topics ...Topic) iter.Seq2[Event, error] {
	return watch(ctx, "link.Watch", ns, topics, nl.EventConfig{})
}

// WatchAll is Watch for the namespace and for all that have an id in it
// (ip-netns(8), "set" and "list-id"); peers of a veth pair get one by
// themselves. Event.NSID tells them apart. It needs CAP_NET_BROADCAST.
//
// The first state, and that after a loss, covers Links and Addrs of all these
// namespaces, but Neighbours and FDB of the namespace itself only: the kernel
// lists these by no id. Of other namespaces they are told as they change.
// Namespaces that get their id later are told from then on, as changes.
func WatchAll(ctx context.Context, ns *netns.NS, topics ...Topic) iter.Seq2[Event, error] {
	return watch(ctx, "link.WatchAll", ns, topics, nl.EventConfig{AllIDs: true})
}

func watch(ctx context.Context, op string, ns *netns.NS, topics []Topic, cfg nl.EventConfig) iter.Seq2[Event, error] {
	w := watcher{ns: ns, all: cfg.AllIDs}
	for _, t := range topics {
		if int(t) < len(w.on) {
			w.on[t] = true
		}
	}
	if w.on[Links] {
		cfg.Groups = append(cfg.Groups, unix.RTNLGRP_LINK)
	}
	if w.on[Addrs] {
		cfg.Groups = append(cfg.Groups, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	}
	if w.on[Neighbours] || w.on[FDB] {
		cfg.Groups = append(cfg.Groups, unix.RTNLGRP_NEIGH)
	}
	return func(yield func(Event, error) bool) {
		err := checkTopics(topics)
		if err == nil {
			_, err = route(ns)
		}
		if err != nil {
			yield(Event{}, fail.New(op, ns, "events", err))
			return
		}
		src := nl.Source[Event]{
			Subscribe: func() (*nl.Events, error) { return ns.Subscribe(ctx, unix.NETLINK_ROUTE, cfg) },
			State:     w.state,
			Decode:    w.decode,
			Synced:    Event{Op: EventSynced, NSID: nl.NoID},
			Resync:    Event{Op: EventResync, NSID: nl.NoID},
		}
		for e, err := range nl.Follow(ctx, src) {
			if err != nil {
				err = fail.New(op, ns, "events", err)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// watcher reads states and events of the topics that are on.
type watcher struct {
	ns  *netns.NS
	all bool
	on  [FDB + 1]bool
}

// state reads everything that is there. A namespace that ends meanwhile has
// nothing to show.
func (w *watcher) state(ctx context.Context) ([]Event, error) {
	conn, err := route(w.ns)
	if err != nil {
		return nil, err
	}
	ids := []int{nl.NoID}
	if w.all {
		if ids, err = namespaceIDs(ctx, conn, ids); err != nil {
			return nil, err
		}
	}
	var state []Event
	dump := func(id int, req nl.Request) error {
		begin := len(state)
		return dumpWhole(ctx, conn, req, func() { state = state[:begin] }, func(m nl.Message) error {
			e, ok, err := w.decode(id, m)
			if ok {
				state = append(state, e)
			}
			return err
		})
	}
	for _, id := range ids {
		var reqs []nl.Request
		if w.on[Links] {
			reqs = append(reqs, targetNamespace(getLink("", 0), unix.IFLA_TARGET_NETNSID, id))
		}
		if w.on[Addrs] {
			reqs = append(reqs, targetNamespace(getAddrs(0), unix.IFA_TARGET_NETNSID, id))
		}
		if w.on[Neighbours] && id == nl.NoID {
			reqs = append(reqs, (&ndMsg{}).request(unix.RTM_GETNEIGH, 0))
		}
		if w.on[FDB] && id == nl.NoID {
			reqs = append(reqs, (&ndMsg{family: unix.AF_BRIDGE}).request(unix.RTM_GETNEIGH, 0))
		}
		for _, req := range reqs {
			begin := len(state)
			if err := dump(id, req); err != nil {
				if _, e, ok := refused(err); ok && id != nl.NoID && e.Errno == unix.EINVAL {
					state = state[:begin] // the id is gone
					continue
				}
				return nil, err
			}
		}
	}
	return state, nil
}

// decode turns a message into an event; ok is false for one that nobody asked
// for.
func (w *watcher) decode(id int, m nl.Message) (e Event, ok bool, err error) {
	e = Event{Op: EventSet, NSID: id}
	if len(m.Body) == 0 {
		return e, false, nil
	}
	family := m.Body[0]
	switch m.Type {
	case unix.RTM_DELLINK, unix.RTM_DELADDR, unix.RTM_DELNEIGH:
		e.Op = EventGone
	}
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// A bridge tells of its ports in the same group, as AF_BRIDGE: there
		// RTM_DELLINK means that a link is no port any more.
		if !w.on[Links] || family != unix.AF_UNSPEC {
			return e, false, nil
		}
		e.Link = new(Link)
		err = decodeLink(e.Link, m.Body)
		if id == nl.NoID {
			e.Link.ns = w.ns
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if !w.on[Addrs] || family != unix.AF_INET && family != unix.AF_INET6 {
			return e, false, nil
		}
		e.Addr = new(Addr)
		err = decodeAddr(e.Addr, m.Body)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if family == unix.AF_BRIDGE && !w.on[FDB] || family != unix.AF_BRIDGE && !w.on[Neighbours] {
			return e, false, nil
		}
		return w.decodeND(e, m)
	default:
		return e, false, nil
	}
	return e, err == nil, err
}

func (w *watcher) decodeND(e Event, m nl.Message) (Event, bool, error) {
	var nd ndMsg
	var macs arena
	if err := decodeND(&nd, m.Body); err != nil {
		return e, false, err
	}
	if nd.family == unix.AF_BRIDGE {
		entry := nd.fdbEntry(&macs)
		e.FDB = &entry
		return e, true, nil
	}
	if !nd.dst.IsValid() || nd.flags&unix.NTF_PROXY != 0 {
		return e, false, nil
	}
	n := nd.neighbour(&macs)
	e.Neighbour = &n
	return e, true, nil
}

// targetNamespace makes a dump that of the namespace with the id (Linux >=
// 4.20), unless that is the connection's own.
func targetNamespace(req nl.Request, attr uint16, id int) nl.Request {
	if id != nl.NoID {
		req.Body = nl.AppendU32(req.Body, attr, uint32(id))
	}
	return req
}

// namespaceIDs appends the ids that the namespace has given to others.
func namespaceIDs(ctx context.Context, conn *nl.Conn, ids []int) ([]int, error) {
	begin := len(ids)
	req := nl.Request{Type: unix.RTM_GETNSID, Body: make([]byte, 4)} // struct rtgenmsg, padded
	err := conn.Dump(ctx, req, func() { ids = ids[:begin] }, func(m nl.Message) error {
		if m.Type != unix.RTM_NEWNSID || len(m.Body) < 4 {
			return nil
		}
		w := nl.Walk(m.Body[4:])
		for w.Next() {
			if w.Type() == unix.NETNSA_NSID && len(w.Data()) >= 4 {
				if id := int(int32(binary.NativeEndian.Uint32(w.Data()))); id >= 0 {
					ids = append(ids, id)
				}
			}
		}
		return w.Err()
	})
	slices.Sort(ids)
	return ids, err
}
