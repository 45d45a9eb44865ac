package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Rule is a rule of the routing policy (ip-rule(8), linux/fib_rules.h): which
// packets, and in which table their route is looked up. Rules are asked in the
// order of their priority; one whose table has no route hands on to the next. A
// zero field selects nothing.
type Rule struct {
	// Family is IPv4 or IPv6; it may be left out if From or To tells.
	Family Family

	// Priority is the place in the order, the lower the earlier. 0 lets the
	// kernel choose the place before the first rule that is not its own. The rule
	// at 0, for [TableLocal], is the kernel's; a rule cannot be added there.
	Priority uint32

	Not bool // selects the packets that what follows does not

	From, To netip.Prefix // source and destination
	IIF, OIF string       // the names of the links they come in by ("lo": packets of this host) and are bound to

	Mark, MarkMask uint32 // the firewall mark, of which the mask's bits count; a mask of 0 with a mark is all

	// TOS is the type of service, the DSCP shifted left by two; for IPv4 the
	// kernel takes the bits 0x1c alone. DSCP is the whole of it, unshifted
	// (>= 6.12), of which the bits of DSCPMask count (>= 6.15), all if 0. On older
	// kernels these, and the masks below, are errors.ErrUnsupported.
	TOS      uint8
	DSCP     *uint8
	DSCPMask uint8

	// FlowLabel is the IPv6 flow label, of which the mask's bits count, all if 0
	// (>= 6.14).
	FlowLabel, FlowLabelMask uint32

	UIDs     *UIDRange // the users that own the socket
	IPProto  uint8     // the protocol: IPPROTO_*, TCP 6 or UDP 17
	SrcPorts Ports     // with IPProto, usually
	DstPorts Ports
	TunID    uint64 // the id of the tunnel it came by, IPv4
	L3MDev   bool   // packets of a VRF, looked up in its table; with no Table

	// Action says what becomes of the packets; 0 is [ToTable].
	Action Action
	Table  Table  // with ToTable, required
	Goto   uint32 // with Goto: the priority of the rule to go on at, a later one

	// Of the routes found, those whose prefix is this short or shorter do not
	// count: 0 passes over default routes.
	SuppressPrefixLen *int
	// Nor do those that leave by a link of this group.
	SuppressGroup *uint32

	Realm    Realm    // of the packets that go by the rule, IPv4
	Protocol Protocol // who made the rule; 0 is [ProtoStatic]

	// Unknown are attributes that this package does not know, as they came; they
	// are sent again as they are.
	Unknown []byte

	// Detached says that IIF or OIF names a link that does not exist now, or that
	// the rule to go to does not. It is not sent.
	Detached bool
}

// UIDRange is a range of user ids, both ends included.
type UIDRange struct{ First, Last uint32 }

// Ports are the ports from First to Last, both included; Last may be 0 if it is
// First. With a Mask they are one port, of which the mask's bits count
// (>= 6.15). The zero Ports is any.
type Ports struct{ First, Last, Mask uint16 }

// Action says what becomes of packets that a rule selects (FR_ACT_*).
type Action uint8

// The actions.
const (
	ToTable      Action = 1 // look the route up in Table
	Goto         Action = 2 // go on at the rule with the priority Goto
	Nop          Action = 3 // nothing: a place to go to
	ActBlackhole Action = 6 // drop
	ActUnreach   Action = 7 // refuse: network unreachable
	ActProhibit  Action = 8 // refuse: administratively prohibited
)

var actionNames = map[Action]string{
	ToTable: "lookup", Goto: "goto", Nop: "nop", ActBlackhole: "blackhole", ActUnreach: "unreachable", ActProhibit: "prohibit",
}

// String returns the name that ip-rule(8) uses, or the number.
func (a Action) String() string { return nameOf(actionNames, a) }

// String returns the rule as ip-rule(8) writes it.
func (r Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", r.Priority)
	say := func(format string, args ...any) { fmt.Fprintf(&b, " "+format, args...) }
	if r.Not {
		say("not")
	}
	if r.From.IsValid() && r.From.Bits() > 0 {
		say("from %s", r.From)
	} else {
		say("from all")
	}
	if r.To.IsValid() && r.To.Bits() > 0 {
		say("to %s", r.To)
	}
	if r.TOS != 0 {
		say("tos %#x", r.TOS)
	}
	if r.DSCP != nil {
		say("dscp %s", masked(uint32(*r.DSCP), uint32(r.DSCPMask), 63))
	}
	if r.FlowLabel != 0 || r.FlowLabelMask != 0 {
		say("flowlabel %s", masked(r.FlowLabel, r.FlowLabelMask, 1<<20-1))
	}
	if r.Mark != 0 || r.MarkMask != 0 {
		say("fwmark %s", masked(r.Mark, r.MarkMask, 1<<32-1))
	}
	if r.IIF != "" {
		say("iif %s", r.IIF)
	}
	if r.OIF != "" {
		say("oif %s", r.OIF)
	}
	if r.L3MDev {
		say("lookup [l3mdev-table]")
	}
	if r.UIDs != nil {
		say("uidrange %d-%d", r.UIDs.First, r.UIDs.Last)
	}
	if r.IPProto != 0 {
		say("ipproto %d", r.IPProto)
	}
	if r.SrcPorts != (Ports{}) {
		say("sport %s", r.SrcPorts)
	}
	if r.DstPorts != (Ports{}) {
		say("dport %s", r.DstPorts)
	}
	if r.TunID != 0 {
		say("tun_id %d", r.TunID)
	}
	switch r.Action {
	case 0, ToTable:
		if !r.L3MDev {
			say("lookup %s", r.Table)
		}
	case Goto:
		say("goto %d", r.Goto)
	default:
		say("%s", r.Action)
	}
	if r.SuppressPrefixLen != nil {
		say("suppress_prefixlength %d", *r.SuppressPrefixLen)
	}
	if r.SuppressGroup != nil {
		say("suppress_ifgroup %d", *r.SuppressGroup)
	}
	if r.Realm != (Realm{}) {
		say("realms %s", r.Realm)
	}
	if r.Protocol != 0 {
		say("proto %s", r.Protocol)
	}
	if len(r.Unknown) > 0 {
		say("unknown %x", r.Unknown)
	}
	return b.String()
}

// String returns "80", "80-90" or "80/0xfff0".
func (p Ports) String() string {
	switch {
	case p.Mask != 0 && p.Mask != 1<<16-1:
		return fmt.Sprintf("%d/%#x", p.First, p.Mask)
	case p.Last > p.First:
		return fmt.Sprintf("%d-%d", p.First, p.Last)
	}
	return fmt.Sprint(p.First)
}

func masked(v, mask, full uint32) string {
	if mask == 0 || mask == full {
		return fmt.Sprintf("%#x", v)
	}
	return fmt.Sprintf("%#x/%#x", v, mask)
}

// family returns the rule's family, from its prefixes if need be; 0 if nothing
// tells.
func (r *Rule) family() Family {
	for _, p := range []netip.Prefix{r.From, r.To} {
		switch {
		case r.Family != 0:
		case p.Addr().Is4():
			return IPv4
		case p.IsValid():
			return IPv6
		}
	}
	return r.Family
}

// Equal reports whether two rules are the same once the defaults that stand for
// a zero are filled in.
func (r Rule) Equal(o Rule) bool {
	r, o = r.normal(), o.normal()
	same := equalPtr(r.DSCP, o.DSCP) && equalPtr(r.UIDs, o.UIDs) && equalPtr(r.SuppressPrefixLen, o.SuppressPrefixLen) &&
		equalPtr(r.SuppressGroup, o.SuppressGroup) && slices.Equal(r.Unknown, o.Unknown)
	return same && r.plain() == o.plain()
}

// plain is the rule without what == does not compare; what it keeps is
// comparable.
func (r Rule) plain() any {
	return [...]any{
		r.Family, r.Priority, r.Not, r.From, r.To, r.IIF, r.OIF, r.Mark, r.MarkMask, r.TOS, r.DSCPMask, r.FlowLabel,
		r.FlowLabelMask, r.IPProto, r.SrcPorts, r.DstPorts, r.TunID, r.L3MDev, r.Action, r.Table, r.Goto, r.Realm, r.Protocol,
	}
}

func equalPtr[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// normal fills in the defaults.
func (r Rule) normal() Rule {
	r.Family = r.family()
	for _, p := range []*netip.Prefix{&r.From, &r.To} {
		if p.Bits() == 0 {
			*p = netip.Prefix{}
		}
	}
	fill := func(mask *uint32, v, full uint32) {
		if *mask == 0 && v != 0 {
			*mask = full
		}
	}
	fill(&r.MarkMask, r.Mark, 1<<32-1)
	fill(&r.FlowLabelMask, r.FlowLabel, 1<<20-1)
	if r.DSCP != nil && r.DSCPMask == 0 {
		r.DSCPMask = 63
	}
	for _, p := range []*Ports{&r.SrcPorts, &r.DstPorts} {
		if *p != (Ports{}) {
			p.Last = max(p.First, p.Last)
			if p.Mask == 0 && p.First == p.Last {
				p.Mask = 1<<16 - 1
			}
		}
	}
	if r.Action == 0 {
		r.Action = ToTable
	}
	if r.Protocol == 0 {
		r.Protocol = ProtoStatic
	}
	return r
}

// check refuses what the kernel would refuse without saying why, or take for
// something else.
func (r Rule) check(del bool) error {
	if err := r.Family.check(); err != nil {
		return err
	}
	family := r.family()
	if family == 0 {
		return refuse.Input("neither Family nor a prefix says whether the rule is for IPv4 or IPv6")
	}
	for _, p := range []struct {
		what string
		netip.Prefix
	}{{"source", r.From}, {"destination", r.To}} {
		if !p.IsValid() {
			continue
		}
		if err := checkPrefix(p.what, p.Prefix); err != nil {
			return err
		}
		if p.Addr().Is4() != (family == IPv4) {
			return refuse.Input("the %s %s is of another family than the rule", p.what, p.Prefix)
		}
	}
	for _, name := range []string{r.IIF, r.OIF} {
		if len(name) > 15 || strings.ContainsAny(name, "/ \t\n") {
			return refuse.Input("%q is no name of a link", name)
		}
	}
	if err := r.checkSelectors(family); err != nil {
		return err
	}
	switch r.Action {
	case 0, ToTable:
		if !del && r.Table == 0 && !r.L3MDev {
			return refuse.Input("no table is given")
		}
		if r.L3MDev && r.Table != 0 {
			return refuse.Input("l3mdev chooses the table: give none")
		}
	case Goto:
		if !del && r.Goto == 0 {
			return refuse.Input("the rule to go to is not given")
		}
		if r.Goto != 0 && r.Priority >= r.Goto {
			return refuse.Input("goto %d does not lead forward from priority %d", r.Goto, r.Priority)
		}
	case Nop, ActBlackhole, ActUnreach, ActProhibit:
	default:
		return refuse.Input("action %d is unknown", r.Action)
	}
	switch to := r.Action == 0 || r.Action == ToTable; {
	case !to && (r.Table != 0 || r.L3MDev):
		return refuse.Input("a table with the action %s", r.Action)
	case r.Action != Goto && r.Goto != 0:
		return refuse.Input("a rule to go to with the action %s", max(r.Action, ToTable))
	case !to && (r.SuppressPrefixLen != nil || r.SuppressGroup != nil):
		return refuse.Input("routes are suppressed with the action %s", r.Action)
	}
	return nil
}

func (r *Rule) checkSelectors(family Family) error {
	switch {
	case r.MarkMask != 0 && r.Mark&^r.MarkMask != 0:
		return refuse.Input("the mark %#x has bits outside its mask %#x", r.Mark, r.MarkMask)
	case r.TOS&3 != 0:
		return refuse.Input("the type of service %#x has one of the two low bits, which are not DSCP's", r.TOS)
	case r.DSCP != nil && (*r.DSCP > 63 || r.DSCPMask > 63):
		return refuse.Input("the DSCP has more than 6 bits")
	case r.DSCP != nil && r.TOS != 0:
		return refuse.Input("both a type of service and a DSCP")
	case r.DSCP == nil && r.DSCPMask != 0:
		return refuse.Input("a mask without a DSCP")
	case r.FlowLabel >= 1<<20 || r.FlowLabelMask >= 1<<20:
		return refuse.Input("the flow label has more than 20 bits")
	case (r.FlowLabel != 0 || r.FlowLabelMask != 0) && family == IPv4:
		return refuse.Input("IPv4 has no flow label")
	case family == IPv6 && (r.TunID != 0 || r.Realm != Realm{}):
		return refuse.Input("IPv6 rules have neither tunnel id nor realm")
	case r.UIDs != nil && r.UIDs.First > r.UIDs.Last:
		return refuse.Input("the users %d-%d are no range", r.UIDs.First, r.UIDs.Last)
	case r.SuppressPrefixLen != nil && (*r.SuppressPrefixLen < 0 || *r.SuppressPrefixLen > 128):
		return refuse.Input("the prefix length %d is not from 0 to 128", *r.SuppressPrefixLen)
	}
	for _, p := range []Ports{r.SrcPorts, r.DstPorts} {
		switch {
		case p == Ports{}:
		case p.First == 0 || p.First == 1<<16-1 || p.Last == 1<<16-1:
			return refuse.Input("the kernel takes ports from 1 to 65534, not %s", p)
		case p.Last != 0 && p.Last < p.First:
			return refuse.Input("the ports %d-%d are no range", p.First, p.Last)
		case p.Mask != 0 && p.Last > p.First:
			return refuse.Input("a range of ports has no mask")
		}
	}
	return nil
}
