package link

import (
	"bytes"
	"net"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Macvlan gives its Spec.Parent, which is required, another hardware address:
// frames to Spec.MAC come out of this link. With Spec.NS it puts a box directly on
// the parent's network. The parent and its macvlans do not reach each other.
//
// It needs the kernel's module macvlan. See ip-link(8) and IFLA_MACVLAN_* in
// linux/if_link.h (in parentheses).
type Macvlan struct {
	Mode      MacvlanMode // how macvlans of the parent reach each other; MacvlanVEPA (MODE)
	NoPromisc bool        // does not make the parent promiscuous, MacvlanPassthru only (FLAGS)
	NoDst     bool        // a frame from one of Sources goes to no other link, MacvlanSource only (FLAGS)

	// Sources are the source addresses whose frames a link in mode MacvlanSource
	// accepts; sorted if read. Update replaces the whole list. (MACADDR_DATA)
	Sources []net.HardwareAddr

	// BroadcastQueue is how many broadcast frames may wait. The parent uses the
	// largest of its macvlans' numbers. The default is 1000; Linux 5.11.
	// (BC_QUEUE_LEN)
	BroadcastQueue uint32

	// BroadcastCutoff is how many macvlans may be members of a group before the
	// kernel queues frames to it; -1 queues none. The default is 1; Linux 6.4.
	// (BC_CUTOFF)
	BroadcastCutoff *int32
}

// Macvtap is a [Macvlan] whose frames a program reads and writes at /dev/tapN,
// where N is the link's index. It needs the kernel's module macvtap.
type Macvtap struct{ Macvlan }

// MacvlanMode says how the macvlans of a parent reach each other, MACVLAN_MODE_* in
// linux/if_link.h.
type MacvlanMode uint32

// The values of MacvlanMode.
const (
	MacvlanPrivate  MacvlanMode = 1  // they do not
	MacvlanVEPA     MacvlanMode = 2  // through an outside switch that sends frames back
	MacvlanBridge   MacvlanMode = 4  // directly
	MacvlanPassthru MacvlanMode = 8  // the parent has this macvlan alone
	MacvlanSource   MacvlanMode = 16 // each accepts frames from its Sources only
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

func (k Macvlan) fields() (Kind, []field) { return &k, k.list() }

func (k *Macvlan) list() []field {
	return []field{
		{1, "IFLA_MACVLAN_MODE", &k.Mode, u32},
		{2, "IFLA_MACVLAN_FLAGS", []*bool{&k.NoPromisc, &k.NoDst}, bits{}},
		{3, "IFLA_MACVLAN_MACADDR_MODE", nil, skipped{}},
		{5 | nested, "IFLA_MACVLAN_MACADDR_DATA", &k.Sources, macvlanSources},
		{6, "IFLA_MACVLAN_MACADDR_COUNT", nil, skipped{}},
		{7, "IFLA_MACVLAN_BC_QUEUE_LEN", &k.BroadcastQueue, u32},
		{9, "IFLA_MACVLAN_BC_CUTOFF", &k.BroadcastCutoff, u32},
	}
}

func (Macvtap) name() string { return "macvtap" }

func (k Macvtap) fields() (Kind, []field) { return &k, k.list() }

// macvlanSources is preceded by IFLA_MACVLAN_MACADDR_MODE, which says what to do
// with the list: MACVLAN_MACADDR_SET.
var macvlanSources = &special{codec: macList{}, lead: nl.AppendU32(nil, 3, 3)}

// macList is a list of hardware addresses in any order.
type macList struct{}

func (macList) check(any) string         { return "" }
func (macList) isSet(v any, _ bool) bool { return len(*v.(*[]net.HardwareAddr)) > 0 }

func (macList) append(b []byte, v any) []byte {
	for _, a := range *v.(*[]net.HardwareAddr) {
		b = nl.AppendAttr(b, 4, a) // IFLA_MACVLAN_MACADDR
	}
	return b
}

func (macList) parse(b []byte, v any, _ *store) {
	var list []net.HardwareAddr
	for w := nl.Walk(b); w.Next(); {
		if len(w.Data()) == 6 {
			list = append(list, bytes.Clone(w.Data()))
		}
	}
	slices.SortFunc(list, func(a, b net.HardwareAddr) int { return bytes.Compare(a, b) })
	*v.(*[]net.HardwareAddr) = list
}

func (c macList) equal(want, have []byte) bool {
	var w, h []net.HardwareAddr
	c.parse(want, &w, nil)
	c.parse(have, &h, nil)
	return slices.EqualFunc(w, h, func(a, b net.HardwareAddr) bool { return bytes.Equal(a, b) })
}
