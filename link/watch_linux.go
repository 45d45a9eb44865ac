package link

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Watch yields the present state of the topics in the namespace, EventSynced, and
// then every change:
//
//	for e, err := range link.Watch(ctx, host, link.TopicLinks, link.TopicAddrs) {
//		if err != nil {
//			return err
//		}
//		switch {
//		case e.Kind == link.EventResync:
//			clear(links)
//		case e.Link != nil && e.Kind == link.EventDeleted:
//			delete(links, e.Link.Index)
//		case e.Link != nil: // EventPresent, EventChanged
//			links[e.Link.Index] = *e.Link
//		}
//	}
//
// A reader that is too slow for the kernel's buffer loses events and not the state.
// It gets EventResync, the whole state of that moment, and EventSynced again. A
// change during the read of the state may be reported although the state has it.
// The last event about a thing is its present state.
//
// The sequence ends with the loop or with an error, which is the last thing it
// yields. When ctx is done, that is the error of ctx. The namespace's handle must
// stay open meanwhile.
func Watch(ctx context.Context, ns *netns.NS, topics ...Topic) iter.Seq2[Event, error] {
	return watch(ctx, "link.Watch", ns, topics, nl.EventConfig{})
}

// WatchAll is [Watch] for the namespace and for all that have an id in it
// (ip-netns(8), "set" and "list-id"); the namespace of a veth's other end gets one
// by itself. Event.NSID is the id. WatchAll needs CAP_NET_BROADCAST.
//
// The first state, and that after a loss, has the links and addresses of all these
// namespaces, but neighbours and forwarding databases of the namespace itself only:
// the kernel does not list these by id. Those of other namespaces are reported as
// they change. A namespace that gets an id later is reported from then on, as
// changes. When a namespace ends, everything that was reported of it is reported as
// deleted; for that the sequence remembers the things of other namespaces.
func WatchAll(ctx context.Context, ns *netns.NS, topics ...Topic) iter.Seq2[Event, error] {
	return watch(ctx, "link.WatchAll", ns, topics, nl.EventConfig{AllIDs: true})
}

func watch(ctx context.Context, op string, ns *netns.NS, topics []Topic, cfg nl.EventConfig) iter.Seq2[Event, error] {
	w := watcher{op: op, ns: ns, cfg: cfg}
	w.listen(topics)
	return func(yield func(Event, error) bool) {
		err := checkTopics(topics)
		if err == nil {
			_, err = route(ns)
		}
		if err != nil {
			yield(Event{}, fail.New(op, ns, "events", err))
			return
		}
		w.run(ctx, yield)
	}
}

// listen notes the topics and the groups of events that they take.
func (w *watcher) listen(topics []Topic) {
	for _, t := range topics {
		if int(t) < len(w.on) {
			w.on[t] = true
		}
	}
	groups := &w.cfg.Groups
	if w.cfg.AllIDs {
		*groups = append(*groups, unix.RTNLGRP_NSID)
	}
	if w.on[TopicLinks] {
		*groups = append(*groups, unix.RTNLGRP_LINK)
	}
	if w.on[TopicAddrs] {
		*groups = append(*groups, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	}
	if w.on[TopicNeighbours] || w.on[TopicFDB] {
		*groups = append(*groups, unix.RTNLGRP_NEIGH)
	}
}

// run yields the state and the events. The things of a namespace that ends are deleted
// one by one.
func (w *watcher) run(ctx context.Context, yield func(Event, error) bool) {
	src := nl.Source[Event]{
		Subscribe: func() (*nl.Events, error) { return nsconn.Subscribe(ctx, w.ns, unix.NETLINK_ROUTE, w.cfg) },
		State:     w.state,
		Decode:    func(id int, m nl.Message) (Event, bool, error) { return w.decode(ctx, id, m) },
		Synced:    Event{Kind: EventSynced, NSID: nl.NoID},
		Resync:    Event{Kind: EventResync, NSID: nl.NoID},
	}
	var others foreignThings
	for e, err := range nl.Follow(ctx, src) {
		if err != nil {
			err = fail.New(w.op, w.ns, "events", err)
		}
		if err == nil && e.Kind == eventEnded {
			for _, gone := range others.end(e.NSID) {
				if !yield(gone, nil) {
					return
				}
			}
			continue
		}
		others.note(&e)
		if !yield(e, err) {
			return
		}
	}
}

// watcher reads states and events of the topics that are on.
type watcher struct {
	op  string
	ns  *netns.NS
	cfg nl.EventConfig
	on  [TopicFDB + 1]bool
	own ownID
}

// state reads everything that is there. A namespace that ends meanwhile has
// nothing to show.
func (w *watcher) state(ctx context.Context) ([]Event, error) {
	conn, err := route(w.ns)
	if err != nil {
		return nil, err
	}
	ids := []int{nl.NoID}
	w.own = ownID{ns: w.ns, id: nl.NoID} // events may have been lost
	if w.cfg.AllIDs {
		if ids, err = namespaceIDs(ctx, conn, ids); err != nil {
			return nil, err
		}
		ids = slices.DeleteFunc(ids, func(id int) bool { return id != nl.NoID && w.own.of(ctx, id) == nl.NoID })
	}
	var state []Event
	for _, id := range ids {
		for _, req := range w.dumps(id) {
			begin := len(state)
			err := dumpWhole(ctx, conn, req, func() { state = state[:begin] }, func(m nl.Message) error {
				e, ok, err := w.decode(ctx, id, m)
				if ok && e.Kind == EventChanged {
					e.Kind = EventPresent
					state = append(state, e)
				}
				return err
			})
			if _, e, ok := refused(err); ok && id != nl.NoID && e.Errno == unix.EINVAL {
				state = state[:begin] // the id is gone
			} else if err != nil {
				return nil, err
			}
		}
	}
	return state, nil
}

// dumps returns the requests for the state of a namespace.
func (w *watcher) dumps(id int) (reqs []nl.Request) {
	if w.on[TopicLinks] {
		reqs = append(reqs, targetNamespace(getLink("", 0), unix.IFLA_TARGET_NETNSID, id))
	}
	if w.on[TopicAddrs] {
		reqs = append(reqs, targetNamespace(getAddrs(0), unix.IFA_TARGET_NETNSID, id))
	}
	if w.on[TopicNeighbours] && id == nl.NoID {
		reqs = append(reqs, (&ndMsg{}).request(unix.RTM_GETNEIGH, 0))
	}
	if w.on[TopicFDB] && id == nl.NoID {
		reqs = append(reqs, (&ndMsg{family: unix.AF_BRIDGE}).request(unix.RTM_GETNEIGH, 0))
	}
	return reqs
}

// decode turns a message into an event; ok is false for one that was not asked
// for.
func (w *watcher) decode(ctx context.Context, id int, m nl.Message) (e Event, ok bool, err error) {
	id = w.own.of(ctx, id)
	e = Event{Kind: EventChanged, NSID: id}
	if len(m.Body) == 0 {
		return e, false, nil
	}
	family := m.Body[0]
	if m.Type == unix.RTM_DELNSID {
		if id != nl.NoID { // an id that another namespace had given
			return e, false, nil
		}
		e.Kind = eventEnded
		err = eachNSID(m, func(id int) {
			e.NSID, ok = id, true
			w.own.ended(id)
		})
		return e, ok && err == nil, err
	}
	switch m.Type {
	case unix.RTM_DELLINK, unix.RTM_DELADDR, unix.RTM_DELNEIGH:
		e.Kind = EventDeleted
	}
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// A bridge notifies its ports to the same group, as AF_BRIDGE: there
		// RTM_DELLINK means that a link is no port any more.
		if !w.on[TopicLinks] || family != unix.AF_UNSPEC {
			return e, false, nil
		}
		e.Link = new(Link)
		err = decodeLink(e.Link, m.Body)
		if id == nl.NoID {
			e.Link.ns = w.ns
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if !w.on[TopicAddrs] || family != unix.AF_INET && family != unix.AF_INET6 {
			return e, false, nil
		}
		e.Addr = new(Addr)
		err = decodeAddr(e.Addr, m.Body)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if family == unix.AF_BRIDGE && !w.on[TopicFDB] || family != unix.AF_BRIDGE && !w.on[TopicNeighbours] {
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
		// For a link without a table the kernel lists the addresses that it
		// accepts, and changes those without an event.
		if nd.flags&ntfSelf != 0 && !nd.timed {
			return e, false, nil
		}
		entry := nd.fdbEntry(&macs)
		e.FDB = &entry
		return e, true, nil
	}
	if !nd.dst.IsValid() || nd.flags&unix.NTF_PROXY != 0 {
		return e, false, nil
	}
	n := nd.neighbour(&macs)
	e.Neighbour = &n
	if n.State == NeighbourNoARP {
		// The kernel makes such entries without an event: for multicast groups,
		// and for all hosts behind a link without ARP.
		e.Kind = EventDeleted
	}
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
		if m.Type != unix.RTM_NEWNSID {
			return nil
		}
		return eachNSID(m, func(id int) { ids = append(ids, id) })
	})
	slices.Sort(ids)
	return ids, err
}

// eachNSID reads the id in a message about one.
func eachNSID(m nl.Message, each func(id int)) error {
	if len(m.Body) < 4 { // struct rtgenmsg, padded
		return errShort
	}
	w := nl.Walk(m.Body[4:])
	for w.Next() {
		if w.Type() == unix.NETNSA_NSID && len(w.Data()) >= 4 {
			if id := int(int32(binary.NativeEndian.Uint32(w.Data()))); id >= 0 {
				each(id)
			}
		}
	}
	return w.Err()
}
