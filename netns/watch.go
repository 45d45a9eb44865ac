package netns

// Named is a named namespace, as [List] finds it.
type Named struct {
	Name string
	ID   ID
}

// An Event is one item of what [Watch] yields.
type Event struct {
	Kind EventKind
	Named
}

// EventKind says what an [Event] is about.
type EventKind uint8

// The kinds of events.
const (
	// Present is a name of the state that the watch begins with.
	Present EventKind = iota + 1
	// Synced says that the state is complete: what follows are changes.
	Synced
	// Created is a name that has come, with its namespace.
	Created
	// Deleted is a name that has gone.
	Deleted
)

// String returns the kind in lower case.
func (k EventKind) String() string {
	switch k {
	case Present:
		return "present"
	case Synced:
		return "synced"
	case Created:
		return "created"
	case Deleted:
		return "deleted"
	}
	return "none"
}

// changes compares two lists that are sorted by name. A name that has another
// namespace now was deleted and created.
func changes(before, now []Named) (events []Event) {
	for len(before) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(before) > 0 && before[0].Name < now[0].Name:
			events = append(events, Event{Deleted, before[0]})
			before = before[1:]
		case len(before) == 0 || now[0].Name < before[0].Name:
			events = append(events, Event{Created, now[0]})
			now = now[1:]
		default:
			if before[0] != now[0] {
				events = append(events, Event{Deleted, before[0]}, Event{Created, now[0]})
			}
			before, now = before[1:], now[1:]
		}
	}
	return events
}
