package route

// An Event is one item of what [Watch], [WatchRules] and [WatchNextHops] yield.
type Event[T Route | Rule | NextHop] struct {
	Kind EventKind
	Item T // zero for Synced and Resync
}

// EventKind says what an [Event] is about.
type EventKind uint8

// The kinds of events.
const (
	// Present is an item of the state that the watch begins with, or begins
	// again with after a Resync.
	Present EventKind = iota + 1
	// Synced says that the state is complete: what follows are changes.
	Synced
	// Changed is an item that was added, or replaced one like it.
	Changed
	// Deleted is an item that is gone.
	Deleted
	// Resync says that changes were lost, or happened without being told: all
	// that was known is void, and the state comes again.
	Resync
)

var kindNames = map[EventKind]string{Present: "present", Synced: "synced", Changed: "changed", Deleted: "deleted", Resync: "resync"}

// String returns the kind in lower case.
func (k EventKind) String() string { return nameOf(kindNames, k) }
