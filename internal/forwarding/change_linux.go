package forwarding

import (
	"cmp"
	"slices"
	"strings"
)

// Setting is a setting of a link.
type Setting uint8

// The settings that forwarding changes.
const (
	IPv4Forwarding Setting = iota
	IPv4RouteLocalnet
	IPv6Forwarding
	IPv6ForceForwarding // Linux >= 6.17
	IPv6AcceptRA
)

// String returns the setting's name in /proc/sys/net/ipv4/conf/* and ipv6/conf/*.
func (s Setting) String() string {
	return [...]string{"forwarding", "route_localnet", "forwarding", "force_forwarding", "accept_ra"}[s]
}

func (s Setting) isIPv4() bool { return s <= IPv4RouteLocalnet }

// All is, of IPv6, the name of the directory whose forwarding is the global switch. No
// link can have it.
const All = "all"

// Change is a change of one setting of one link: from one value to another, '0', '1' or
// '2'.
//
// One whose values are equal only has to be reverted: the global switch changes it
// then. One without values is only recorded: the switch changes it in both directions.
//
// With an Index, a link that has come in the place of that one, under its name, is left
// alone. Without, the change is of the link that has the name when it is written.
type Change struct {
	Link     string
	Index    int
	Setting  Setting
	From, To byte

	// Apart says, of IPv4Forwarding, that the link was off while the global switch was on. So somebody
	// has set the link apart, and the switch does not speak for it.
	Apart bool
}

// NoteApart is the note of such a link.
const NoteApart = "ip_forward=1"

// A note is a change of IPv6 settings as text.
type note struct {
	text     string
	isSwitch bool // the change of the global switch
	change   Change
}

var notes = []note{
	{"force_forwarding", false, Change{Setting: IPv6ForceForwarding, From: '0', To: '1'}},
	{"all.forwarding", true, Change{Setting: IPv6Forwarding, From: '0', To: '1'}},
	{"forwarding=1", false, Change{Setting: IPv6Forwarding, From: '1', To: '1'}},
	{"forwarding=0", false, Change{Setting: IPv6Forwarding}},
	{"accept_ra=1", false, Change{Setting: IPv6AcceptRA, From: '1', To: '2'}},
}

// Note returns a change of an IPv6 setting as text without its link, for [ParseNotes]. Of an IPv4 setting
// it returns [NoteApart] or nothing.
func (c Change) Note() string {
	if c.Setting.isIPv4() {
		if c.Apart {
			return NoteApart
		}
		return ""
	}
	isSwitch := c.Link == All
	c.Link, c.Index = "", 0
	for _, n := range notes {
		if n.change == c && n.isSwitch == isSwitch {
			return n.text
		}
	}
	return ""
}

// ParseNotes returns the changes of a link that text says, as Note writes them, with
// blanks between. It ignores what it does not know.
func ParseNotes(link, text string) (changes []Change) {
	for word := range strings.FieldsSeq(text) {
		for _, n := range notes {
			if n.text == word && n.isSwitch == (link == All) {
				c := n.change
				c.Link = link
				changes = append(changes, c)
			}
		}
	}
	return changes
}

// Sort puts changes into the order in which they are applied: the global switch last.
func Sort(changes []Change) {
	last := func(c Change) int {
		if c.Link == All {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(changes, func(a, b Change) int { return cmp.Compare(last(a), last(b)) })
}
