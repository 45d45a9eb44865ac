package link

import (
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Topic is a sort of things that [Watch] reports.
type Topic uint8

// The values of Topic.
const (
	// TopicLinks is links (RTNLGRP_LINK).
	TopicLinks Topic = 1

	// TopicAddrs is addresses (RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR). Link
	// and Prefix.Addr() identify an IPv6 address: with another peer it is
	// changed, and not deleted before. Prefix and Peer are part of the identity
	// of an IPv4 address. The kernel changes a Tentative IPv6 address without an
	// event; the change is reported once the address no longer is.
	TopicAddrs Topic = 2

	// TopicNeighbours is neighbours (RTNLGRP_NEIGH), without proxy entries and
	// NeighbourNoARP ones, which the kernel makes without an event. An entry
	// that becomes NeighbourNoARP is reported as deleted. The kernel sends no
	// event for NeighbourIncomplete and NeighbourDelay; the next state is
	// reported.
	TopicNeighbours Topic = 3

	// TopicFDB is the forwarding databases of bridges and VXLANs
	// (RTNLGRP_NEIGH). Master, MAC and VLAN identify an entry of a bridge: if it
	// moves to another port, it is changed, and not deleted before. The kernel
	// may give a link's own address (FDBLocal) to another port or to the bridge
	// without an event. Entries with Self of other links change without an event
	// and are not reported.
	TopicFDB Topic = 4
)

// Event is what [Watch] yields: a thing that is there, has changed or was deleted,
// or a mark. A mark, EventSynced or EventResync, has no thing.
type Event struct {
	Kind EventKind

	// NSID is this namespace's id for the namespace that the event comes from
	// (ip-netns(8), "list-id"). -1 is this namespace itself.
	NSID int

	// Exactly one of these is not nil, in a mark none. The methods of a Link
	// from another namespace return os.ErrInvalid: open that namespace by
	// netns.NS.OpenNSID, and read the link there by ByIndex.
	Link      *Link
	Addr      *Addr
	Neighbour *Neighbour
	FDB       *FDBEntry
}

// EventKind says what an [Event] is about.
type EventKind = netns.EventKind

// The kinds of events; see [netns.EventKind]. A deleted thing has the fields that
// it had.
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
