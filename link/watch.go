package link

import (
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Topic is what [Watch] reports.
type Topic uint8

// The values of Topic.
const (
	TopicLinks Topic = 1 // RTNLGRP_LINK

	// RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR. An IPv6 address is identified by Link
	// and Prefix.Addr() alone: with another peer it is changed, and not deleted
	// before. For IPv4, Prefix and Peer are part of it. While an IPv6 address is
	// Tentative, the kernel changes it without an event: the change is reported
	// when it no longer is.
	TopicAddrs Topic = 2

	// RTNLGRP_NEIGH. Proxy entries are not reported, nor are those that are
	// NeighbourNoARP, which the kernel makes without an event: an entry that becomes
	// NeighbourNoARP is reported as deleted. The kernel sends no event when an entry
	// becomes NeighbourIncomplete or NeighbourDelay; the state after it is reported.
	TopicNeighbours Topic = 3

	// RTNLGRP_NEIGH: the forwarding databases of bridges and VXLANs. An entry of
	// a bridge is identified by Master, MAC and VLAN: when it moves to another port
	// it is changed, and not deleted before. The kernel may give a link's own address
	// (FDBLocal) to another port, or to the bridge, without an event. Addresses that
	// links which are neither bridge port nor VXLAN listen to (Self) change without
	// an event and are not reported.
	TopicFDB Topic = 4
)

// Event is what [Watch] yields: one thing as it is now, one that was deleted, or a
// mark.
type Event struct {
	Kind EventKind

	// NSID is this namespace's number for the namespace that the event
	// comes from (ip-netns(8), "list-id"); -1 is this namespace itself.
	NSID int

	// The thing: one of them is not nil, of a mark none. The methods of a
	// Link from another namespace return os.ErrInvalid; netns.NS.OpenNSID
	// gives a handle on that namespace, in which ByIndex reads the link.
	Link      *Link
	Addr      *Addr
	Neighbour *Neighbour
	FDB       *FDBEntry
}

// EventKind says what an [Event] is about.
type EventKind = netns.EventKind

// The kinds of events; see [netns.EventKind]. A thing that is deleted has the fields that
// it had. EventSynced and EventResync are marks.
const (
	EventPresent = netns.EventPresent
	EventSynced  = netns.EventSynced
	EventChanged = netns.EventChanged
	EventDeleted = netns.EventDeleted
	EventResync  = netns.EventResync
)

// checkTopics refuses a Topic that does not exist.
func checkTopics(topics []Topic) error {
	if len(topics) == 0 {
		return refuse.Input("no topic is given")
	}
	for _, t := range topics {
		if t < TopicLinks || t > TopicFDB {
			return refuse.Input("topic %d does not exist", t)
		}
	}
	return nil
}
