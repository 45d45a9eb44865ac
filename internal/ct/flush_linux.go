package ct

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Target says which flows to flush: those of a protocol that were, before any
// translation, for an address and one of the ports First to Last. The
// unspecified address of a family stands for every address of the namespace.
type Target struct {
	Proto       uint8
	Addr        netip.Addr
	First, Last uint16

	// Unanswered spares flows that have seen a packet in each direction. Of the
	// others, some to the same port of other addresses may go, too: their next
	// packet begins them anew.
	Unanswered bool
}

// How many targets are asked for one by one; of more, the whole table is read
// once. A delete by filter walks the kernel's flows (0.1 ms, and 0.2 us a flow),
// a dump its whole hash table under a lock for each bucket (10 ms for the usual
// 262144 buckets), and then what it brings costs 2 us a flow.
const (
	maxDeletes = 16
	maxDumps   = 3
)

// Flush deletes the flows of the targets.
//
// local says whether an address is one of the namespace. It is asked, once for
// each address, about flows for the port of a target with an unspecified
// address: a flow that only passes through, to the same port of another
// machine, stays.
func (t Table) Flush(ctx context.Context, targets []Target, local func(context.Context, netip.Addr) (bool, error)) error {
	if len(targets) <= maxDeletes {
		left := targets[:0:0]
		for _, g := range targets {
			done, err := t.deleteByFilter(ctx, g)
			if err != nil {
				return err
			}
			if !done {
				left = append(left, g)
			}
		}
		targets = left
	}
	if len(targets) == 0 {
		return nil
	}
	m := newMatcher(targets)
	flows, err := t.find(ctx, targets, m)
	if err == nil {
		flows, err = m.own(ctx, flows, local)
	}
	if err != nil {
		return err
	}
	_, err = t.Delete(ctx, flows...)
	return err
}

// find reads the flows that match.
func (t Table) find(ctx context.Context, targets []Target, m *matcher) ([]Flow, error) {
	if len(targets) > maxDumps {
		return t.List(ctx, m.match)
	}
	var flows []Flow
	for _, g := range targets {
		some, err := t.dump(ctx, selection(g), m.match)
		if err != nil {
			return nil, err
		}
		flows = append(flows, some...)
	}
	return flows, nil
}

// deleteByFilter deletes the flows of a target at once (>= 6.11), where the
// kernel compares all that matters, and reports whether it has.
func (t Table) deleteByFilter(ctx context.Context, g Target) (bool, error) {
	byAddr := g.Addr.Is4() && !g.Addr.IsUnspecified()
	if !byAddr && !g.Unanswered || g.First != g.Last || g.Proto != unix.IPPROTO_TCP && g.Proto != unix.IPPROTO_UDP {
		return false, nil
	}
	err := t.nl.Call(ctx, nl.Request{Type: msgType(msgDelete), Body: selection(g)}, nil)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	}
	return false, fmt.Errorf("deleting from the conntrack table: %w", err)
}

// matcher finds the targets of a flow.
type matcher struct {
	single map[Target]bool
	ranges []Target
}

func newMatcher(targets []Target) *matcher {
	m := &matcher{single: make(map[Target]bool, len(targets))}
	for _, g := range targets {
		if g.First == g.Last {
			m.single[g] = true
		} else {
			m.ranges = append(m.ranges, g)
		}
	}
	return m
}

// find says whether a target with the address addr holds the flow.
func (m *matcher) find(f *Flow, addr netip.Addr) bool {
	port := f.Orig.Dst.Port()
	one := Target{Proto: f.Orig.Proto, Addr: addr, First: port, Last: port}
	if m.single[one] {
		return true
	}
	if one.Unanswered = true; !f.Answered() && m.single[one] {
		return true
	}
	for _, g := range m.ranges {
		if g.Proto == f.Orig.Proto && g.Addr == addr && g.First <= port && port <= g.Last && !(g.Unanswered && f.Answered()) {
			return true
		}
	}
	return false
}

// match says whether the flow is one of a target's, if its address is local.
func (m *matcher) match(f *Flow) bool {
	return hasPorts(f.Orig.Proto) && (m.find(f, f.Orig.Dst.Addr()) || m.find(f, unspecified(f.v6())))
}

// own returns the flows without those that only a target with an unspecified
// address holds, and that are for others.
func (m *matcher) own(ctx context.Context, flows []Flow, local func(context.Context, netip.Addr) (bool, error)) ([]Flow, error) {
	known := make(map[netip.Addr]bool)
	kept := flows[:0]
	for i := range flows {
		f := &flows[i]
		a := f.Orig.Dst.Addr()
		wanted := m.find(f, a)
		if !wanted {
			is, asked := known[a]
			if !asked {
				var err error
				if is, err = local(ctx, a); err != nil {
					return nil, err
				}
				known[a] = is
			}
			wanted = is
		}
		if wanted {
			kept = append(kept, *f)
		}
	}
	return kept, nil
}

func unspecified(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
