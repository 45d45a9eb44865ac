package netns

// Entry is a named namespace.
type Entry struct {
	Name string
	ID   ID
}

// An Event is one item that [Watch] yields. EventChanged is a new name together with its
// namespace. If a name gets another namespace, EventDeleted comes first.
type Event struct {
	Kind EventKind
	Entry
}

// changes compares two lists that are sorted by name. A name that has another
// namespace now was deleted and created.
func changes(before, now []Entry) (events []Event) {
	for len(before) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(before) > 0 && before[0].Name < now[0].Name:
			events = append(events, Event{EventDeleted, before[0]})
			before = before[1:]
		case len(before) == 0 || now[0].Name < before[0].Name:
			events = append(events, Event{EventChanged, now[0]})
			now = now[1:]
		default:
			if before[0] != now[0] {
				events = append(events, Event{EventDeleted, before[0]}, Event{EventChanged, now[0]})
			}
			before, now = before[1:], now[1:]
		}
	}
	return events
}
