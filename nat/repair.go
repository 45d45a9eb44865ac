package nat

import "fmt"

// Repair is what [NAT.Keep] tells: that it has begun, or what it has put right.
type Repair struct {
	Reason Reason

	// By is the program that had changed the table, with its process id, as
	// "nft (4711)"; "" where the kernel does not tell. In another PID namespace
	// than the machine's first one, the number is that in the first.
	By string
}

// Reason says what made a [Repair] necessary.
type Reason int

// The reasons for a repair.
const (
	// KeepStarted is told once, when the table is as desired and watched from
	// then on.
	KeepStarted Reason = iota

	// TableRemoved is a table that another program removed, alone or with the
	// whole ruleset.
	TableRemoved

	// TableChanged is a table in which another program changed or removed rules,
	// or removed elements.
	TableChanged

	// LinkAppeared is a link that came, or was renamed, and had to be made to
	// forward.
	LinkAppeared

	// EventsLost is a table that was not as desired when the kernel had more to
	// tell than could be read, so that what happened is not known.
	EventsLost
)

// String returns the reason in words: "the table was removed".
func (r Reason) String() string {
	switch r {
	case KeepStarted:
		return "watching the table"
	case TableRemoved:
		return "the table was removed"
	case TableChanged:
		return "the table was changed"
	case LinkAppeared:
		return "a link appeared"
	case EventsLost:
		return "the table differed after events were lost"
	}
	return fmt.Sprintf("reason %d", int(r))
}

// String returns the repair in words: "the table was removed by nft (4711)".
func (r Repair) String() string {
	if r.By == "" {
		return r.Reason.String()
	}
	return r.Reason.String() + " by " + r.By
}
