package link

import (
	"bytes"
	"net"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Macvlan gives the link below (Spec.Parent, required) another hardware address:
// frames to Spec.MAC come out of this link. Made with Spec.NS it hangs a box
// directly on the parent's network. The parent itself and its macvlans do not
// reach each other.
//
// Needs the kernel's module "macvlan". See ip-link(8), IFLA_MACVLAN_* in
// linux/if_link.h (in parentheses).
type Macvlan struct {
	Mode      MacvlanMode // MacvlanVEPA is the kernel's default (MODE)
	NoPromisc bool        // the parent is not made promiscuous; passthru only (FLAGS)
	NoDst     bool        // source mode: a frame that has a source link does not go to others, too; Linux 5.10 (FLAGS)

	// Sources are the addresses that a link in source mode takes frames
	// from, in order when read. Given to a change they replace those before.
	// (MACADDR_DATA)
	Sources []net.HardwareAddr

	// BroadcastQueue is how many broadcast frames may wait; the parent uses
	// the largest of its macvlans' (1000); Linux 5.11. (BC_QUEUE_LEN)
	BroadcastQueue uint32

	// BroadcastCutoff: with more macvlans than that, broadcast frames to a
	// group are queued; 1, -1: never; Linux 6.4. (BC_CUTOFF)
	BroadcastCutoff *int32
}

// Macvtap is a [Macvlan] whose frames a program reads and writes at /dev/tapN,
// where N is the link's index. Needs the kernel's module "macvtap".
type Macvtap struct{ Macvlan }

// MacvlanMode says what macvlans of one parent have to do with each other,
// MACVLAN_MODE_* in linux/if_link.h.
type MacvlanMode uint32

const (
	MacvlanPrivate  MacvlanMode = 1  // nothing
	MacvlanVEPA     MacvlanMode = 2  // they meet on an outside switch that sends frames back
	MacvlanBridge   MacvlanMode = 4  // they reach each other directly
	MacvlanPassthru MacvlanMode = 8  // there is only one; it has the parent to itself
	MacvlanSource   MacvlanMode = 16 // each takes frames from its Sources only
)

func (Macvlan) name() string { return "macvlan" }

func (k Macvlan) check(outer *Spec) error {
	if len(k.Sources) > 0 && k.Mode != MacvlanSource && k.Mode != 0 {
		return refuse.Input("Sources need MacvlanSource as the Mode")
	}
	for _, a := range k.Sources {
		if err := checkMAC(a); err != nil {
			return err
		}
	}
	return needParent("a macvlan", outer)
}

func (k Macvlan) options(o *options) Kind {
	number(o, 1, "IFLA_MACVLAN_MODE", 4, &k.Mode)
	k.flags(o)
	k.sources(o)
	number(o, 7, "IFLA_MACVLAN_BC_QUEUE_LEN", 4, &k.BroadcastQueue)
	signed(o, 9, "IFLA_MACVLAN_BC_CUTOFF", &k.BroadcastCutoff)
	return k
}

func (Macvtap) name() string { return "macvtap" }

func (k Macvtap) options(o *options) Kind {
	k.Macvlan = k.Macvlan.options(o).(Macvlan)
	return k
}

// flags has its bits in one number without a mask.
func (k *Macvlan) flags(o *options) {
	var v uint16
	if k.NoPromisc {
		v |= 1
	}
	if k.NoDst {
		v |= 2
	}
	number(o, 2, "IFLA_MACVLAN_FLAGS", 2, &v)
	k.NoPromisc, k.NoDst = v&1 != 0, v&2 != 0
}

// sources: MACADDR_MODE says what is to be done with the list behind it.
func (k *Macvlan) sources(o *options) {
	const addr, set = 4, 3 // IFLA_MACVLAN_MACADDR, MACVLAN_MACADDR_SET
	var list []byte
	for _, a := range k.Sources {
		list = nl.AppendAttr(list, addr, a)
	}
	if o.do == encode && o.have != nil && sameSources(list, o.have[5]) {
		return
	}
	o.custom(3, "IFLA_MACVLAN_MACADDR_MODE", len(list) > 0, func() []byte { return width(4).payload(set) }, nil, nil)
	o.custom(5|nested, "IFLA_MACVLAN_MACADDR_DATA", len(list) > 0, func() []byte { return list },
		func(b []byte) {
			for w := nl.Walk(b); w.Next(); {
				if len(w.Data()) == 6 {
					k.Sources = append(k.Sources, bytes.Clone(w.Data()))
				}
			}
			slices.SortFunc(k.Sources, func(a, b net.HardwareAddr) int { return bytes.Compare(a, b) })
		}, func(want, have []byte) bool { return false })
	o.custom(6, "IFLA_MACVLAN_MACADDR_COUNT", false, nil, nil, nil) // told, not asked for
}

// sameSources compares two lists in any order.
func sameSources(a, b []byte) bool {
	m := map[string]int{}
	for w := nl.Walk(a); w.Next(); {
		m[string(w.Data())]++
	}
	for w := nl.Walk(b); w.Next(); {
		m[string(w.Data())]--
	}
	for _, n := range m {
		if n != 0 {
			return false
		}
	}
	return true
}
