package link

import (
	"fmt"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Topic is a sort of things that [Watch] tells about.
type Topic uint8

const (
	Links      Topic = 1 // RTNLGRP_LINK
	Addrs      Topic = 2 // RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR
	Neighbours Topic = 3 // RTNLGRP_NEIGH; proxy entries are not told
	FDB        Topic = 4 // RTNLGRP_NEIGH: the forwarding databases
)

// Event is what [Watch] yields: one thing as it is now, one that has gone, or a
// mark.
type Event struct {
	Op EventOp

	// NSID is this namespace's number for the namespace that the event
	// comes from (ip-netns(8), "list-id"); -1 is this namespace itself.
	NSID int

	// The thing: one of them is not nil, of a mark none. The methods of a
	// Link from another namespace return os.ErrInvalid.
	Link      *Link
	Addr      *Addr
	Neighbour *Neighbour
	FDB       *FDBEntry
}

// EventOp says what an event tells.
type EventOp uint8

const (
	EventSet    EventOp = 1 // the thing is there, as given: it is part of the first state, is new, or has changed
	EventGone   EventOp = 2 // the thing has gone; its fields are those that it had
	EventSynced EventOp = 3 // mark: what was set up to now is the whole state
	EventResync EventOp = 4 // mark: events were lost; forget everything, the whole state comes again
)

// String returns "set", "gone", "synced" or "resync".
func (o EventOp) String() string {
	switch o {
	case EventSet:
		return "set"
	case EventGone:
		return "gone"
	case EventSynced:
		return "synced"
	case EventResync:
		return "resync"
	}
	return fmt.Sprintf("EventOp(%d)", uint8(o))
}

// checkTopics refuses a Topic that does not exist.
func checkTopics(topics []Topic) error {
	if len(topics) == 0 {
		return refuse.Input("no topic is given")
	}
	for _, t := range topics {
		if t < Links || t > FDB {
			return refuse.Input("topic %d does not exist", t)
		}
	}
	return nil
}
