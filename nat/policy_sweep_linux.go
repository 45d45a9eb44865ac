package nat

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/nft"
	"golang.org/x/sys/unix"
)

// A policySweep ends the connections that a change of policies forbids: those that the new policies
// do not allow, and the old ones did. What the old ones did not allow either has begun by a grant,
// or before the box had a policy at all, and an earlier sweep has decided about it.
type policySweep struct {
	n        *NAT
	old, now policies
	all      bool            // what the old policies were is not known: all that the new ones deny ends
	grants   map[setKey]bool // with all, connections by these stay

	routes routeKinds
}

// run ends the connections. It reads nothing if no policy became tighter, or nothing is tracked.
func (s *policySweep) run(ctx context.Context) error {
	s.routes.n = s.n
	if !s.all && !s.tighter() || len(s.now) == 0 {
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
	stale, err := table.List(ctx, func(f *ct.Flow) bool { return s.meets(f) })
	stale = slices.DeleteFunc(stale, func(f ct.Flow) bool { return !s.ends(ctx, &f) })
	if s.routes.err != nil {
		return errNotEnded(errors.Join(err, s.routes.err))
	}
	if err == nil {
		_, err = table.Delete(ctx, stale...)
	}
	return notEnded(err)
}

// tighter reports whether a new policy may deny what the old one allowed.
func (s *policySweep) tighter() bool {
	for a, now := range s.now {
		old := s.old[a]
		if !widens(old.Egress, now.Egress) || !widens(old.Ingress, now.Ingress) {
			return true
		}
	}
	return false
}

// widens reports whether new rules have all of the old ones.
func widens(old, now *Rules) bool {
	if old == nil || now == nil {
		return now == nil
	}
	have := make(map[string]bool, len(now.Allow))
	for _, r := range now.Allow {
		have[r.String()] = true
	}
	return !slices.ContainsFunc(old.Allow, func(r Rule) bool { return !have[r.String()] })
}

// meets reports whether a flow is from or to a box with a policy.
func (s *policySweep) meets(f *ct.Flow) bool {
	_, from := s.now[f.Orig.Src.Addr()]
	_, to := s.now[f.Reply.Src.Addr()]
	return from || to
}

// ends reports whether a flow ends.
func (s *policySweep) ends(ctx context.Context, f *ct.Flow) bool {
	if f.Status&statusExpected != 0 {
		return false
	}
	src, dst := f.Orig.Src.Addr(), f.Reply.Src
	out := target{host: s.isHost(ctx, dst.Addr()), peer: dst.Addr(), proto: f.Orig.Proto}
	if Proto(f.Orig.Proto).check() == nil {
		out.port = dst.Port()
	}
	if now, ok := s.now[src]; ok && !out.isDHCP() && !now.Egress.allow(out) {
		if s.all && !s.granted(src, out) || !s.all && s.old[src].Egress.allow(out) {
			return true
		}
	}
	in := target{peer: src, proto: out.proto, port: out.port}
	if now, ok := s.now[dst.Addr()]; ok && !now.Ingress.allow(in) && !s.isHost(ctx, src) {
		return s.all || s.old[dst.Addr()].Ingress.allow(in)
	}
	return false
}

// isDHCP reports whether the connection is what every box may open to the host.
func (t target) isDHCP() bool {
	return t.host && t.proto == uint8(UDP) && (t.port == 67 || t.port == 547)
}

// granted reports whether a grant allows a connection.
func (s *policySweep) granted(box netip.Addr, t target) bool {
	for _, k := range []portKey{{onePort, t.proto, t.port}, {eachPort, t.proto, 0}, {class: eachProto}} {
		it := item{familyOf(box).grant, nft.Element{Key: ruleKey(box.AsSlice(), k, netip.PrefixFrom(t.peer, t.peer.BitLen()))}}
		if s.grants[it.setKey()] {
			return true
		}
	}
	return false
}

// isHost reports whether what is sent to an address reaches the host itself.
func (s *policySweep) isHost(ctx context.Context, a netip.Addr) bool {
	switch s.routes.of(ctx, a) {
	case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
		return true
	}
	return false
}
