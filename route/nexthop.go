package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// NextHop is a next-hop object (ip-nexthop(8), linux/nexthop.h, >= 5.3): where packets go,
// apart from the routes that refer to it by [Route.NextHop]. Replacing the object moves all
// its routes at once. Deleting it deletes them.
//
// There are four kinds: a gateway or link (Via, Dev), a drop (Blackhole), a group of others
// (Group), and with FDB an entry for a vxlan link's forwarding table.
type NextHop struct {
	// ID is the object's number, above 0. The caller chooses it; with 0, [AddNextHop] lets
	// the kernel choose.
	ID uint32

	// Family is IPv4 or IPv6. 0 is the family of Via, or IPv4 without Via. A group has
	// none. An IPv4 route takes objects of both families, an IPv6 route only those of IPv6.
	Family Family

	Via       netip.Addr // the gateway, reachable over Dev
	Dev       int        // the index of the link, required but for Blackhole, Group and FDB
	OnLink    bool       // Via is on the link, even if no route leads there
	Blackhole bool       // drops packets
	Encap     Encap      // the tunnel header that packets get

	// FDB makes the object one for the forwarding table of a vxlan link (>= 5.8): Via
	// without Dev, or a Group of such objects.
	FDB bool

	// Group lists the objects that the kernel chooses from by a hash of the flow.
	Group []Member

	// Resilient keeps flows on their object when the Group changes (>= 5.13). nil is a
	// plain group.
	Resilient *Resilient

	// Protocol says who made the object; 0 is [ProtoStatic].
	Protocol Protocol

	// Flags are what the kernel reports about the object. They are not sent.
	Flags Flags
}

// A Member is one object of a group.
type Member struct {
	ID     uint32
	Weight int // its share, 1 to 256, required; 256 takes Linux 6.12
}

// Resilient says how a group keeps flows on their object. The kernel spreads flows over
// buckets, and a bucket moves to another member only when it is idle.
type Resilient struct {
	Buckets uint16 // how many, required; several times the members

	// IdleTimer is how long a bucket must be without packets before it may move; nil is the
	// kernel's 120 s. UnbalancedTimer is the time after which buckets move even if they are
	// not idle; nil is never. Both are in steps of 10 ms.
	IdleTimer       *time.Duration
	UnbalancedTimer *time.Duration
}

// String returns the object as ip-nexthop(8) writes it, with the link's index instead of
// its name.
func (n NextHop) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "id %d", n.ID)
	for i, m := range n.Group {
		sep := "/"
		if i == 0 {
			sep = " group "
		}
		fmt.Fprintf(&b, "%s%d", sep, m.ID)
		if m.Weight != 1 {
			fmt.Fprintf(&b, ",%d", m.Weight)
		}
	}
	if r := n.Resilient; r != nil {
		fmt.Fprintf(&b, " type resilient buckets %d", r.Buckets)
		if r.IdleTimer != nil {
			fmt.Fprintf(&b, " idle_timer %v", r.IdleTimer.Seconds())
		}
		if r.UnbalancedTimer != nil {
			fmt.Fprintf(&b, " unbalanced_timer %v", r.UnbalancedTimer.Seconds())
		}
	}
	writeHop(&b, n.Via, n.Encap, n.Via, n.Dev)
	if n.Blackhole {
		b.WriteString(" blackhole")
	}
	if n.FDB {
		b.WriteString(" fdb")
	}
	if n.Protocol != 0 {
		fmt.Fprintf(&b, " proto %s", n.Protocol)
	}
	if n.OnLink {
		b.WriteString(" onlink")
	}
	writeMore(&b, Realm{}, n.Flags)
	return b.String()
}

// Equal reports whether two objects are the same after defaults are filled in. It ignores
// Flags, and a timer of a resilient group that only one of them sets.
func (n NextHop) Equal(o NextHop) bool {
	n, o = n.normal(), o.normal()
	return n.ID == o.ID && n.Family == o.Family && n.Via == o.Via && n.Dev == o.Dev && n.OnLink == o.OnLink &&
		n.Blackhole == o.Blackhole && n.FDB == o.FDB && n.Protocol == o.Protocol && equalEncap(n.Encap, o.Encap) &&
		slices.Equal(n.Group, o.Group) && n.Resilient.equal(o.Resilient)
}

func (r *Resilient) equal(o *Resilient) bool {
	if r == nil || o == nil {
		return r == o
	}
	same := func(a, b *time.Duration) bool { return a == nil || b == nil || *a == *b }
	return r.Buckets == o.Buckets && same(r.IdleTimer, o.IdleTimer) && same(r.UnbalancedTimer, o.UnbalancedTimer)
}

// normal fills in the defaults. The order of a group's members is the kernel's.
func (n NextHop) normal() NextHop {
	switch {
	case len(n.Group) > 0:
		n.Family = 0
	case n.Family != 0:
	case n.Via.Is6():
		n.Family = IPv6
	default:
		n.Family = IPv4
	}
	if n.Protocol == 0 {
		n.Protocol = ProtoStatic
	}
	n.Group = slices.Clone(n.Group)
	slices.SortFunc(n.Group, func(a, b Member) int { return int(int64(a.ID) - int64(b.ID)) })
	return n
}

func (n NextHop) check() error {
	if err := errors.Join(checkFamily(n.Family), n.Protocol.check()); err != nil {
		return err
	}
	hop := n.Via.IsValid() || n.Dev != 0 || n.OnLink || n.Encap != nil
	switch {
	case len(n.Group) > 0 && (hop || n.Blackhole || n.Family != 0):
		return refuse.Input("a group has nothing but its members")
	case n.Blackhole && (hop || n.FDB):
		return refuse.Input("a next hop that drops has no gateway and no link")
	case n.FDB && len(n.Group) == 0 && (!n.Via.IsValid() || n.Dev != 0 || n.OnLink || n.Encap != nil):
		return refuse.Input("a next hop of a forwarding table has a gateway, and no link")
	case n.Resilient != nil && len(n.Group) == 0:
		return refuse.Input("only a group is resilient")
	case n.Resilient != nil && n.FDB:
		return refuse.Input("a group of a forwarding table is not resilient")
	case len(n.Group) == 0 && !n.Blackhole && !n.FDB && n.Dev == 0:
		return refuse.Input("no link is given")
	case n.Family != 0 && n.Via.IsValid() && n.Via.Is4() != (n.Family == IPv4):
		return refuse.Input("the gateway %s is of another family than the next hop", n.Via)
	}
	if err := checkHop(n.Via, n.Via, n.Dev, n.OnLink, n.Encap); err != nil {
		return err
	}
	seen := map[uint32]bool{}
	for _, m := range n.Group {
		switch {
		case m.ID == 0:
			return refuse.Input("a member of the group has no id")
		case m.ID == n.ID || seen[m.ID]:
			return refuse.Input("the member %d is in the group twice, or the group itself", m.ID)
		case m.Weight < 1 || m.Weight > 256:
			return refuse.Input("weight %d of the member %d is not from 1 to 256", m.Weight, m.ID)
		}
		seen[m.ID] = true
	}
	return n.Resilient.check()
}

const tick = 10 * time.Millisecond // USER_HZ

func (r *Resilient) check() error {
	if r == nil {
		return nil
	}
	if r.Buckets == 0 {
		return refuse.Input("a resilient group has no buckets")
	}
	for _, d := range []*time.Duration{r.IdleTimer, r.UnbalancedTimer} {
		if d != nil && (*d < 0 || *d%tick != 0 || *d/tick > 1<<31-1) {
			return refuse.Input("the timer %v is not a multiple of %v that fits 32 bits", *d, tick)
		}
	}
	return nil
}

// NextHopFilter selects the next hops that [ListNextHops] returns. A zero field matches
// any. The kernel applies the filter, except Protocol.
type NextHopFilter struct {
	Family   Family   // objects of this family; a group has none
	Dev      int      // those that leave by the link with this index
	Master   int      // those that leave by a port of the bridge or VRF with this index
	Groups   bool     // groups only
	FDB      bool     // those of forwarding tables only
	Protocol Protocol // those that this protocol made
}

// A Bucket is one bucket of a resilient group.
type Bucket struct {
	Index  uint16
	Member uint32        // the id of the object that its flows go to
	Idle   time.Duration // since its last packet
}
