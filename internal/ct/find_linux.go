package ct

import (
	"context"
	"net/netip"
)

// flowsPerDump is how many flows are read in the time of one more dump. A dump
// walks the kernel's whole hash table, commonly 262144 buckets with a lock for each,
// whatever the filter.
const flowsPerDump = 3000

// find reads the flows that match, of a table with so many entries: by one dump
// of all of it where that is cheaper than one for each target. No kernel compares
// ports for both families in one dump.
func (t Table) find(ctx context.Context, targets []Target, m *matcher, entries int) ([]Flow, error) {
	if len(targets) > 1 && entries <= flowsPerDump*(len(targets)-1) {
		return t.dump(ctx, everything(), m.match)
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
