package nat

import "fmt"

// Repair is an event of [NAT.Maintain]: that it has started, or what it has repaired.
type Repair struct {
	Reason Reason

	// By is the program that changed the table, with its process id: "nft (4711)". The process id
	// is that of the initial PID namespace. By is "" where the kernel does not report it.
	By string
}

// Reason is the reason for a [Repair].
type Reason int

// The reasons for a repair.
const (
	// ReasonStarted is reported once: the table is as desired, and watched from now on.
	ReasonStarted Reason = iota

	// ReasonTableRemoved means that another program removed the table, alone or with the whole
	// ruleset.
	ReasonTableRemoved

	// ReasonTableChanged means that another program changed or removed rules of the table, or
	// removed elements.
	ReasonTableChanged

	// ReasonLinkAppeared means that a link appeared, was renamed or got an address, and had to be made to
	// forward or to be in the flowtable of [Network.Flowtable]; or that a guarded port appeared or got
	// another MAC address.
	ReasonLinkAppeared

	// ReasonForwardingOff means that another program switched forwarding off for the host or for a
	// link that a network needs, or route_localnet of a network's interface.
	ReasonForwardingOff

	// ReasonEventsLost means that the kernel sent events faster than they were read, and the table
	// then differed from the desired state.
	ReasonEventsLost
)

// String returns the reason in words: "the table was removed".
func (r Reason) String() string {
	switch r {
	case ReasonStarted:
		return "watching the table"
	case ReasonTableRemoved:
		return "the table was removed"
	case ReasonTableChanged:
		return "the table was changed"
	case ReasonLinkAppeared:
		return "a link appeared"
	case ReasonForwardingOff:
		return "forwarding was switched off"
	case ReasonEventsLost:
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
