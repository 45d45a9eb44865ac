package link

import (
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
)

// eventEnded is an event that a watcher does not yield: a namespace has ended, and
// its id is free. The kernel takes the id away first, and sends no events of what it
// removes then.
const eventEnded EventKind = 255

// foreignThings are the things of other namespaces that were reported, by the id of the
// namespace, so that they can be reported as deleted when that ends.
type foreignThings map[int]map[thing]Event

// thing is what the kernel keeps one of in a namespace.
type thing struct {
	topic     Topic
	link      int
	prefix    netip.Prefix // of an address
	addr      netip.Addr   // its peer; of a neighbour, or the host behind a VXLAN
	mac       string
	vlan      uint16
	self      bool
	port      uint16
	vni, from uint32
	via       int
	nextHop   uint32
}

func thingOf(e *Event) thing {
	switch {
	case e.Link != nil:
		return thing{topic: TopicLinks, link: e.Link.Index}
	case e.Addr != nil:
		return thing{topic: TopicAddrs, link: e.Addr.Link, prefix: e.Addr.Prefix, addr: e.Addr.Peer}
	case e.Neighbour != nil:
		return thing{topic: TopicNeighbours, link: e.Neighbour.Link, addr: e.Neighbour.Addr}
	case e.FDB != nil:
		f := e.FDB
		in := f.Master // whose table it is in
		if f.Self || in == 0 {
			in = f.Link
		}
		return thing{
			topic: TopicFDB, link: in, mac: string(f.MAC), vlan: f.VLAN, self: f.Self,
			addr: f.Dst, port: f.Port, vni: f.VNI, from: f.SrcVNI, via: f.Via, nextHop: f.NextHop,
		}
	}
	return thing{}
}

// note records what an event reports.
func (o *foreignThings) note(e *Event) {
	t := thingOf(e)
	switch {
	case e.Kind == EventResync:
		*o = nil
	case e.NSID == nl.NoID || t.topic == 0:
	case e.Kind == EventDeleted:
		delete((*o)[e.NSID], t)
	case e.Kind == EventChanged || e.Kind == EventPresent:
		if *o == nil {
			*o = foreignThings{}
		}
		if (*o)[e.NSID] == nil {
			(*o)[e.NSID] = map[thing]Event{}
		}
		(*o)[e.NSID][t] = copyOf(e)
	}
}

// end forgets a namespace and returns the events of what it had: what belongs to links
// first, in an order that is always the same.
func (o *foreignThings) end(id int) []Event {
	var gone []Event
	for _, e := range (*o)[id] {
		e.Kind = EventDeleted
		gone = append(gone, e)
	}
	delete(*o, id)
	slices.SortStableFunc(gone, func(a, b Event) int { return compareThings(thingOf(&b), thingOf(&a)) })
	return gone
}

func compareThings(a, b thing) int {
	if a.topic != b.topic {
		return int(a.topic) - int(b.topic)
	}
	if a.link != b.link {
		return a.link - b.link
	}
	if c := a.prefix.Addr().Compare(b.prefix.Addr()); c != 0 {
		return c
	}
	return a.addr.Compare(b.addr)
}

// copyOf is the event with a copy of its thing, which is the reader's otherwise.
func copyOf(e *Event) Event {
	c := *e
	switch {
	case e.Link != nil:
		c.Link = new(*e.Link)
	case e.Addr != nil:
		c.Addr = new(*e.Addr)
	case e.Neighbour != nil:
		c.Neighbour = new(*e.Neighbour)
	case e.FDB != nil:
		c.FDB = new(*e.FDB)
	}
	return c
}
