package netns

import "github.com/boxwire/boxwire/internal/enum"

// EventKind is the kind of an event that a watch yields. Packages netns, link and route
// share it. A watch first yields the present state, then EventSynced, then the changes.
type EventKind uint8

// The kinds of events.
const (
	// EventPresent is an item of the state that the watch begins with, or begins again with
	// after EventResync.
	EventPresent EventKind = iota + 1
	// EventSynced marks the end of the state. Changes follow.
	EventSynced
	// EventChanged is an item that was added, or that replaced one like it.
	EventChanged
	// EventDeleted is an item that is gone.
	EventDeleted
	// EventResync says that changes were lost. Forget all items; the state follows again.
	// The Watch of package netns never yields it.
	EventResync
)

var eventNames = map[EventKind]string{
	EventPresent: "present", EventSynced: "synced", EventChanged: "changed", EventDeleted: "deleted", EventResync: "resync",
}

// String returns the kind in lower case: "present".
func (k EventKind) String() string { return enum.Name(eventNames, k) }

// MarshalText returns what String does.
func (k EventKind) MarshalText() ([]byte, error) { return enum.Marshal(eventNames, k) }

// UnmarshalText reads what MarshalText writes. Other text is os.ErrInvalid.
func (k *EventKind) UnmarshalText(text []byte) error { return enum.Unmarshal(eventNames, k, text) }
