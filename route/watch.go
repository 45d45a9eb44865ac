package route

import "github.com/boxwire/boxwire/netns"

// An Event is one item that [Watch], [WatchRules] and [WatchNextHops] yield.
type Event[T Route | Rule | NextHop] struct {
	Kind EventKind
	Item T // zero for EventSynced and EventResync
}

// EventKind is the kind of an [Event].
type EventKind = netns.EventKind

// The kinds of events; see [netns.EventKind].
const (
	EventPresent = netns.EventPresent
	EventSynced  = netns.EventSynced
	EventChanged = netns.EventChanged
	EventDeleted = netns.EventDeleted
	EventResync  = netns.EventResync
)
