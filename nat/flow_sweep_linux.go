package nat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/rtnl"
	"golang.org/x/sys/unix"
)

// A sweep ends flows that contradict the present table: that it would not let begin, or would
// translate otherwise. After a change, it looks at the flows of changed networks. The first Sync of
// a program looks at all flows.
//
// Some flows cannot be decided by the present table alone. Such a flow ends only if the previous
// table explains it and the present one does not: by a pinhole, a published port or a masquerade
// that is gone. Otherwise it stays, because its pinhole may have been deleted earlier
// (DeletePinholes leaves flows), or it belongs to another program.
type sweep struct {
	n       *NAT
	had, is []item // the table before the change and after, but for kept
	kept    *portMatch
	all     bool // look at all flows, and not only at those of networks that changed
	rebuilt bool // the table was missing or damaged: any flow may have begun meanwhile

	old, now *flowPolicy // the policies of had and is
	routes   routeKinds
	links    map[int]string
}

// changedNetworks returns the networks, before and after, whose flows are let in or translated
// otherwise.
func changedNetworks(old, now []NetworkState) (nets []NetworkState) {
	for _, n := range old {
		if !slices.ContainsFunc(now, n.isRuledAs) {
			nets = append(nets, n)
		}
	}
	for _, n := range now {
		if !slices.ContainsFunc(old, n.isRuledAs) {
			nets = append(nets, n)
		}
	}
	return nets
}

// isRuledAs reports whether the fields that a flowPolicy depends on are equal.
func (n NetworkState) isRuledAs(o NetworkState) bool {
	n.ClampMSS, o.ClampMSS = false, false
	n.PortGroup, o.PortGroup = 0, 0
	n.Flowtable, o.Flowtable = false, false
	return reflect.DeepEqual(n.Network, o.Network)
}

// run ends the stale flows. It follows a commit, so it ignores the end of ctx. It reads nothing if
// no network changed or nothing is tracked.
func (s *sweep) run(ctx context.Context) error {
	s.routes.n = s.n
	old, err := networksOf(s.had)
	if err != nil {
		return err
	}
	now, err := networksOf(s.is)
	if err != nil {
		return err
	}
	nets := changedNetworks(old, now)
	if !s.all && len(nets) == 0 {
		return nil
	}
	table, err := s.n.flows()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	if any, err := table.Any(ctx); err != nil || !any {
		return notEnded(err)
	}
	if s.old, err = newFlowPolicy(s.had, old, s.kept); err != nil {
		return err
	}
	if s.now, err = newFlowPolicy(s.is, now, s.kept); err != nil {
		return err
	}
	if len(old)+len(now)+s.old.size+s.now.size == 0 {
		return nil
	}
	// First select the flows that may end. The kernel is asked for the addresses of these only.
	stale, err := table.List(ctx, func(f *ct.Flow) bool {
		return (s.all || meets(nets, f)) && (s.mayEnd(ctx, f, true) || s.mayEnd(ctx, f, false))
	})
	stale = slices.DeleteFunc(stale, func(f ct.Flow) bool { return !s.ends(ctx, &f) })
	if s.routes.err != nil { // whatever it is: a kernel without conntrack has no flow to ask about
		return errNotEnded(errors.Join(err, s.routes.err))
	}
	if err == nil {
		_, err = table.Delete(ctx, stale...)
	}
	return notEnded(err)
}

// meets reports whether a flow has an address of the networks, or leads by a published port to a box of
// another host for which they have an address.
func meets(nets []NetworkState, f *ct.Flow) bool {
	for _, a := range []netip.AddrPort{f.Orig.Src, f.Orig.Dst, f.Reply.Src} {
		if networkOf(nets, a.Addr()) != nil {
			return true
		}
	}
	return moved(f) && slices.ContainsFunc(nets, func(n NetworkState) bool {
		_, far := n.seenAs(f.Reply.Src.Addr().Is6())
		return far && n.trusts(f.Reply.Src.Addr())
	})
}

// mayEnd reports whether a flow may end, assuming that its destination is an address of the host or
// not (toHost).
func (s *sweep) mayEnd(ctx context.Context, f *ct.Flow, toHost bool) bool {
	if s.changesSides(f) {
		return true
	}
	switch j := s.now.verdict(f, false, toHost); j {
	case flowHidden:
		return s.hadFixed(f) || !s.isLocal(ctx, f.Reply.Dst.Addr())
	case flowStranger:
		return meets(s.old.nets, f)
	default:
		return s.mustEnd(f, j, false, toHost)
	}
}

// ends reports whether a flow ends.
func (s *sweep) ends(ctx context.Context, f *ct.Flow) bool {
	dst := f.Orig.Dst.Addr()
	if s.routes.of(ctx, dst) == unix.RTN_BROADCAST { // the host's, and not translated
		return false
	}
	fromHost, toHost := s.isLocal(ctx, f.Orig.Src.Addr()), s.isLocal(ctx, dst)
	if !fromHost && s.changesSides(f) {
		return true
	}
	switch j := s.now.verdict(f, fromHost, toHost); j {
	case flowHidden:
		// Behind an address that is none of the host's, or the fixed one that the
		// network had, where the masquerade takes another.
		a := f.Reply.Dst.Addr()
		return !s.isLocal(ctx, a) || s.hadFixed(f) && s.routes.route(ctx, f.Reply.Src.Addr()).Source != a
	case flowStranger:
		return s.hasBlockedUplink(ctx, f)
	default:
		return s.mustEnd(f, j, fromHost, toHost)
	}
}

// changesSides reports whether an address of a flow was elsewhere, in a trusted prefix inside a subnet,
// and is the network's now, or the other way round. The flow's packets come in by a link then that is
// not theirs any more.
func (s *sweep) changesSides(f *ct.Flow) bool {
	for _, a := range []netip.AddrPort{f.Orig.Src, f.Reply.Src} {
		was, wasIn := isElsewhere(s.old.nets, a.Addr())
		is, isIn := isElsewhere(s.now.nets, a.Addr())
		if wasIn && isIn && was != is {
			return true
		}
	}
	return false
}

// isElsewhere reports whether an address is in a subnet of the networks, and whether it is in a trusted
// prefix inside the subnet.
func isElsewhere(nets []NetworkState, a netip.Addr) (elsewhere, in bool) {
	for i := range nets {
		for _, s := range nets[i].Subnets {
			if s.Contains(a) {
				return !nets[i].contains(a), true
			}
		}
	}
	return false, false
}

// mustEnd reports whether a flow with this verdict ends.
func (s *sweep) mustEnd(f *ct.Flow, j flowVerdict, fromHost, toHost bool) bool {
	switch j {
	case flowWrong:
		return true
	case flowMoved:
		if s.all {
			return true
		}
	case flowClosed:
		if s.rebuilt {
			return true
		}
	case flowForeign:
	default:
		return false
	}
	switch s.old.verdict(f, fromHost, toHost) {
	case flowRight, flowHidden, flowStranger:
		return true
	}
	return false
}

// hadFixed reports whether a flow is translated to the SNAT address that its network had, or that
// visitors of the box of another host had.
func (s *sweep) hadFixed(f *ct.Flow) bool {
	if a, ok := s.old.seenAs(f.Reply.Src.Addr()); ok && moved(f) && a == f.Reply.Dst.Addr() {
		return true
	}
	net := networkOf(s.old.nets, f.Orig.Src.Addr())
	if net == nil {
		return false
	}
	a, ok := net.fixed(f.Orig.Src.Addr().Is6())
	return ok && a == f.Reply.Dst.Addr()
}

// hasBlockedUplink reports whether a flow of a former network comes in by a link that forwards for
// networks only.
func (s *sweep) hasBlockedUplink(ctx context.Context, f *ct.Flow) bool {
	src := f.Orig.Src.Addr()
	enabled := s.now.enabled[0]
	if src.Is6() {
		enabled = s.now.enabled[1]
	}
	if !meets(s.old.nets, f) || len(enabled) == 0 {
		return false
	}
	if net := networkOf(s.old.nets, src); net != nil {
		return enabled[net.Interface]
	}
	h := s.routes.route(ctx, src)
	if s.links == nil {
		links, err := readLinks(ctx, s.n.ns)
		s.routes.err = cmp.Or(s.routes.err, err)
		s.links = make(map[int]string, len(links))
		for _, l := range links {
			s.links[l.Index] = l.Name
		}
	}
	return enabled[s.links[h.Link()]]
}

func (s *sweep) isLocal(ctx context.Context, a netip.Addr) bool {
	return s.routes.of(ctx, a) == unix.RTN_LOCAL
}

// routeKinds looks up routes to addresses, and keeps their types.
type routeKinds struct {
	n     *NAT
	kinds map[netip.Addr]byte
	err   error // the first lookup that failed
}

// of returns the route type of an address.
func (r *routeKinds) of(ctx context.Context, a netip.Addr) byte {
	kind, asked := r.kinds[a]
	if !asked {
		kind = r.route(ctx, a).Type
		if r.kinds == nil {
			r.kinds = make(map[netip.Addr]byte)
		}
		r.kinds[a] = kind
	}
	return kind
}

func (r *routeKinds) route(ctx context.Context, a netip.Addr) rtnl.Route {
	h, err := r.n.route(ctx, a)
	r.err = cmp.Or(r.err, err)
	return h
}

// notEnded says that older flows were not ended. Without conntrack in the kernel there are none.
func notEnded(err error) error {
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return errNotEnded(err)
}

func errNotEnded(err error) error {
	return fmt.Errorf("the change is made, but older flows were not ended: %w", err)
}
