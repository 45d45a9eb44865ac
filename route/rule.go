package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/enum"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Rule is a routing rule (ip-rule(8), linux/fib_rules.h): it selects packets, and names the
// table that their route is looked up in. The kernel tries rules in the order of their
// priority. If a rule's table has no route, the next rule follows. A zero field matches any
// packet.
type Rule struct {
	// Family is IPv4 or IPv6. It may be left out if From or To is given.
	Family Family

	// Priority is the place in the order, the lowest first. With 0 the kernel chooses one
	// less than the priority of the second rule (fib_default_rule_pref): behind the
	// kernel's first rule, and before all others.
	Priority uint32

	// First is place 0, before every Priority. The kernel's own rule there leads to
	// [TableLocal]. A listed rule at that place has First set.
	First bool

	Not bool // selects the packets that the following fields do not match

	From, To netip.Prefix // source and destination
	IIF, OIF string       // the names of the links that packets come in by ("lo": packets of this host) and are bound to

	// Mark is the firewall mark. MarkMask selects the bits of it that count; nil is all
	// bits if there is a Mark. A mask of 0 matches every packet. The kernel keeps it and
	// the Mark nevertheless: a rule with it and one without are different rules.
	Mark     uint32
	MarkMask *uint32

	// TOS is the type of service, the DSCP shifted left by two. For IPv4 the kernel takes
	// the bits 0x1c only. DSCP is the whole DSCP, not shifted (>= 6.12). DSCPMask selects
	// the bits of it that count (>= 6.15); nil is all. On older kernels DSCP, the masks and
	// FlowLabel are errors.ErrUnsupported.
	TOS      uint8
	DSCP     *uint8
	DSCPMask *uint8

	// FlowLabel is the IPv6 flow label (>= 6.14). FlowLabelMask selects the bits of it that
	// count; 0 is all.
	FlowLabel, FlowLabelMask uint32

	UIDs     *UIDRange // the users that own the socket
	IPProto  uint8     // the protocol: IPPROTO_*, TCP 6 or UDP 17
	SrcPorts Ports     // with IPProto, usually
	DstPorts Ports
	TunID    uint64 // the id of the tunnel it came by, IPv4
	L3MDev   bool   // packets of a VRF, looked up in its table; without Table

	// Action is what happens to the packets; 0 is [ActionToTable].
	Action Action
	Table  Table  // with ActionToTable, required
	Goto   uint32 // with ActionGoto: the priority of a later rule to go on at

	// SuppressPrefixLen ignores found routes whose prefix is this long or shorter: 0
	// ignores default routes.
	SuppressPrefixLen *int
	// SuppressGroup ignores found routes that leave by a link of this group.
	SuppressGroup *uint32

	Realm    Realm    // of packets that the rule routes, IPv4
	Protocol Protocol // who made the rule; 0 is [ProtoStatic]

	// Unknown are attributes that this package does not know, in the kernel's encoding.
	// They are sent unchanged.
	Unknown []byte

	// Detached reports that the link of IIF or OIF, or the rule that Goto leads to, does
	// not exist now. It is not sent.
	Detached bool
}

// UIDRange is a range of user ids, both ends included.
type UIDRange struct{ First, Last uint32 }

// Ports are the ports from First to Last, both included. Last may be 0 if it equals First.
// With a Mask they are one port, and the mask selects the bits of it that count (>= 6.15).
// The zero Ports is any port.
type Ports struct{ First, Last, Mask uint16 }

// Action is what happens to packets that a rule selects (FR_ACT_*).
type Action uint8

// The actions.
const (
	ActionToTable     Action = 1 // look the route up in Table
	ActionGoto        Action = 2 // go on at the rule with the priority Goto
	ActionNop         Action = 3 // nothing: a place for ActionGoto
	ActionBlackhole   Action = 6 // drop
	ActionUnreachable Action = 7 // refuse: network unreachable
	ActionProhibit    Action = 8 // refuse: administratively prohibited
)

var actionNames = map[Action]string{
	ActionToTable: "lookup", ActionGoto: "goto", ActionNop: "nop", ActionBlackhole: "blackhole", ActionUnreachable: "unreachable", ActionProhibit: "prohibit",
}

// String returns the name that ip-rule(8) uses, or the number.
func (a Action) String() string { return enum.Name(actionNames, a) }

// MarshalText returns what String does.
func (a Action) MarshalText() ([]byte, error) { return enum.Marshal(actionNames, a) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (a *Action) UnmarshalText(text []byte) error { return enum.Unmarshal(actionNames, a, text) }

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
		mask := uint32(63)
		if r.DSCPMask != nil {
			mask = uint32(*r.DSCPMask)
		}
		say("dscp %s", masked(uint32(*r.DSCP), mask, 63))
	}
	if r.FlowLabel != 0 || r.FlowLabelMask != 0 {
		say("flowlabel %s", masked(r.FlowLabel, r.normal().FlowLabelMask, 1<<20-1))
	}
	if mask := r.normal().MarkMask; mask != nil {
		say("fwmark %s", masked(r.Mark, *mask, 1<<32-1))
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
	case 0, ActionToTable:
		if !r.L3MDev {
			say("lookup %s", r.Table)
		}
	case ActionGoto:
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
	if mask == full {
		return fmt.Sprintf("%#x", v)
	}
	return fmt.Sprintf("%#x/%#x", v, mask)
}

// family returns the rule's family, which its prefixes may give, or 0.
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

// Equal reports whether two rules are the same after defaults are filled in.
func (r Rule) Equal(o Rule) bool {
	r, o = r.normal(), o.normal()
	same := equalPtr(r.MarkMask, o.MarkMask) && equalPtr(r.DSCP, o.DSCP) && equalPtr(r.DSCPMask, o.DSCPMask) && equalPtr(r.UIDs, o.UIDs) && equalPtr(r.SuppressPrefixLen, o.SuppressPrefixLen) &&
		equalPtr(r.SuppressGroup, o.SuppressGroup) && slices.Equal(r.Unknown, o.Unknown)
	return same && r.plain() == o.plain()
}

// plain is the rule without what == does not compare; what it keeps is
// comparable.
func (r Rule) plain() any {
	return [...]any{
		r.Family, r.Priority, r.First, r.Not, r.From, r.To, r.IIF, r.OIF, r.Mark, r.TOS, r.FlowLabel,
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
	switch {
	case r.Mark != 0 && r.MarkMask == nil:
		r.MarkMask = new(uint32(1<<32 - 1))
	case r.Mark == 0 && r.MarkMask != nil && *r.MarkMask == 0:
		r.MarkMask = nil // the kernel does not show it
	}
	if r.FlowLabel != 0 && r.FlowLabelMask == 0 {
		r.FlowLabelMask = 1<<20 - 1
	}
	if r.DSCP != nil && r.DSCPMask == nil {
		r.DSCPMask = new(uint8(63))
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
		r.Action = ActionToTable
	}
	if r.Protocol == 0 {
		r.Protocol = ProtoStatic
	}
	return r
}

// check refuses what the kernel would refuse without a reason, or misread.
func (r Rule) check(del bool) error {
	if err := errors.Join(checkFamily(r.Family), r.Protocol.check()); err != nil {
		return err
	}
	family := r.family()
	if family == 0 {
		return refuse.Input("neither Family nor a prefix says whether the rule is for IPv4 or IPv6")
	}
	if err := r.checkPrefixes(family); err != nil {
		return err
	}
	for _, name := range []string{r.IIF, r.OIF} {
		if len(name) > 15 || strings.ContainsAny(name, "/ \t\n") {
			return refuse.Input("%q is no name of a link", name)
		}
	}
	if r.First && r.Priority != 0 {
		return refuse.Input("the place is given twice: First is 0, and the priority %d", r.Priority)
	}
	if del && r.choosesAll() {
		return refuse.Input("it chooses every rule, and so the kernel's own at 0; give First or its table")
	}
	if err := r.checkSelectors(family, del); err != nil {
		return err
	}
	return r.checkAction(del)
}

func (r *Rule) checkPrefixes(family Family) error {
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
	return nil
}

func (r *Rule) checkAction(del bool) error {
	switch r.Action {
	case 0, ActionToTable:
		if !del && r.Table == 0 && !r.L3MDev {
			return refuse.Input("no table is given")
		}
		if r.L3MDev && r.Table != 0 {
			return refuse.Input("l3mdev chooses the table: give none")
		}
	case ActionGoto:
		if !del && r.Goto == 0 {
			return refuse.Input("the rule to go to is not given")
		}
		if r.Goto != 0 && r.Priority >= r.Goto {
			return refuse.Input("goto %d does not lead forward from priority %d", r.Goto, r.Priority)
		}
	case ActionNop, ActionBlackhole, ActionUnreachable, ActionProhibit:
	default:
		return refuse.Input("action %d is unknown", r.Action)
	}
	switch to := r.Action == 0 || r.Action == ActionToTable; {
	case !to && (r.Table != 0 || r.L3MDev):
		return refuse.Input("a table with the action %s", r.Action)
	case r.Action != ActionGoto && r.Goto != 0:
		return refuse.Input("a rule to go to with the action %s", max(r.Action, ActionToTable))
	case !to && (r.SuppressPrefixLen != nil || r.SuppressGroup != nil):
		return refuse.Input("routes are suppressed with the action %s", r.Action)
	}
	return nil
}

// choosesAll says whether the kernel would take the rule to delete for its own
// at 0, which nothing in it names.
func (r *Rule) choosesAll() bool {
	own := Rule{Family: r.family(), First: true, Action: ActionToTable, Table: TableLocal, Protocol: ProtoKernel}
	return !r.First && r.Table == 0 && r.mayPick(&own)
}

// mayPick says whether the kernel may take have for the rule, when it looks for
// one to delete: a field that is not given matches any value (fib_rules.c:
// rule_find). It compares what every kernel compares; of the rest it assumes
// that it matches.
func (r *Rule) mayPick(have *Rule) bool {
	n, h := r.normal(), have.normal()
	place := r.Priority == 0 && !r.First || r.Priority == h.Priority
	protocol := r.Protocol == ProtoUnspec || picks(r.Protocol, have.Protocol)
	prefix := func(p, q netip.Prefix) bool { return !p.IsValid() || p == q }
	mark := n.MarkMask == nil || *n.MarkMask == 0 || equalPtr(n.MarkMask, h.MarkMask)
	return n.Family == h.Family && place && protocol && mark && (r.Action == 0 || n.Action == h.Action) &&
		picks(r.Table, h.Table) && prefix(n.From, h.From) && prefix(n.To, h.To) && picks(r.IIF, h.IIF) && picks(r.OIF, h.OIF) &&
		picks(r.Mark, h.Mark) && picks(r.IPProto, h.IPProto) && picks(r.TOS, h.TOS) && picks(r.TunID, h.TunID) &&
		n.SrcPorts.mayPick(h.SrcPorts) && n.DstPorts.mayPick(h.DstPorts) && picks(r.L3MDev, h.L3MDev) &&
		picksPtr(r.UIDs, h.UIDs) && picksPtr(r.SuppressPrefixLen, h.SuppressPrefixLen) && picksPtr(r.SuppressGroup, h.SuppressGroup) &&
		picksPtr(r.DSCP, h.DSCP) && picks(r.FlowLabel, h.FlowLabel) && picks(r.Realm, h.Realm)
}

// picks reports whether a field of a rule to delete matches that of one that there is: the zero value matches any.
func picks[T comparable](want, have T) bool {
	return want == *new(T) || want == have
}

// picksPtr is picks for fields in which nil stands for none.
func picksPtr[T comparable](want, have *T) bool { return want == nil || equalPtr(want, have) }

func (p Ports) mayPick(have Ports) bool {
	return p == Ports{} || p.First == have.First && p.Last == have.Last
}

func (r *Rule) checkSelectors(family Family, del bool) error {
	switch {
	case r.TOS&3 != 0:
		return refuse.Input("the type of service %#x has one of the two low bits, which are not DSCP's", r.TOS)
	case r.DSCP != nil && (*r.DSCP > 63 || r.DSCPMask != nil && *r.DSCPMask > 63):
		return refuse.Input("the DSCP has more than 6 bits")
	case r.DSCP != nil && r.TOS != 0:
		return refuse.Input("both a type of service and a DSCP")
	case r.DSCP == nil && r.DSCPMask != nil:
		return refuse.Input("a mask without a DSCP")
	case r.FlowLabel >= 1<<20 || r.FlowLabelMask >= 1<<20:
		return refuse.Input("the flow label has more than 20 bits")
	case (r.FlowLabel != 0 || r.FlowLabelMask != 0) && family == IPv4:
		return refuse.Input("IPv4 has no flow label")
	case family == IPv6 && (r.TunID != 0 || r.Realm != Realm{}):
		return refuse.Input("IPv6 rules have neither tunnel id nor realm")
	case r.UIDs != nil && r.UIDs.First > r.UIDs.Last:
		return refuse.Input("the users %d-%d are no range", r.UIDs.First, r.UIDs.Last)
	case r.SuppressPrefixLen != nil && (*r.SuppressPrefixLen < 0 || !del && *r.SuppressPrefixLen > 128):
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
