package nat

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// policyPart is what Sync knows about the policies of the table.
type policyPart struct {
	there bool     // the table has the part for policies
	had   policies // of the table; nil if some of its records cannot be read
	want  policies
}

// readSets are the sets that Sync compares: not those that the rules fill.
func (s *policyPart) readSets() (names []string) {
	for _, f := range families {
		names = append(names, f.policy, f.refuse, f.hostRules, f.grant)
		for _, d := range f.directions() {
			names = append(names, d.limited, d.denied, d.rules)
		}
	}
	return names
}

// readPolicies adds the elements of policies to those of the table, if it has the part for policies.
// A part that lacks something else is found by its rules, which use all other sets.
func (s *syncTx) readPolicies(ctx context.Context) (err error) {
	s.policies.had = nil
	if s.policies.there, err = s.c.HasSet(ctx, s.n.table, families[0].policy); err != nil || !s.policies.there {
		return err
	}
	items, err := s.n.readSomeItems(ctx, s.c, s.policies.readSets()...)
	s.have = append(s.have, items...)
	return err
}

// wantPolicies adds the elements of the policies that the table shall have: those of the state, and
// those of owners that it does not speak for. The networks are among the wanted elements already.
func (s *syncTx) wantPolicies() error {
	p := &s.policies
	p.want = make(policies)
	var err error
	if p.had, err = policiesOf(s.have); err != nil {
		if s.desired.Owners != nil {
			return damagedPolicy(fmt.Errorf("the policies of other owners cannot be kept: %w", err))
		}
		p.had = nil
	}
	nets, err := networksOf(s.want)
	if err != nil {
		return err
	}
	counts := make(map[string]uint32)
	for a, old := range p.had {
		if net := networkOf(nets, a); !s.desired.owns(old.Owner) && net != nil && net.contains(a) {
			p.want[a] = old
			counts[net.Interface]++
		}
	}
	for _, pol := range s.desired.policies {
		first := ""
		for _, a := range pol.Box {
			net := networkOf(nets, a)
			if net == nil || !net.contains(a) {
				return fmt.Errorf("%s: %w", pol.subject(), refuse.As(os.ErrNotExist, "the address %v is in no network's subnet", a))
			}
			if first == "" {
				first = net.Interface
			}
			if net.Interface != first {
				return fmt.Errorf("%s: %w", pol.subject(), refuse.Input("its addresses are in different networks: %s and %s", first, net.Interface))
			}
			if other, ok := p.want[a]; ok {
				return fmt.Errorf("%s: %w", pol.subject(), refuse.As(os.ErrExist, "the address %v has a policy of %q", a, other.Owner))
			}
			p.want[a] = pol
			counts[net.Interface]++
		}
	}
	items, err := p.want.items()
	if err != nil {
		return err
	}
	s.want = append(s.want, items...)
	for iface, addrs := range counts {
		s.want = append(s.want, policedItems(iface, addrs)...)
	}
	s.keepGrants()
	return nil
}

// keepGrants adds the grants of the boxes that have a policy.
func (s *syncTx) keepGrants() {
	for _, it := range s.have {
		if !isGrant(it.set) {
			continue
		}
		if _, ok := s.policies.want[grantedTo(it)]; ok {
			s.want = append(s.want, it)
		}
	}
}

// needsPolicies reports whether the wanted elements need the part for policies.
func (s *syncTx) needsPolicies() bool {
	for _, it := range s.want {
		if kindOf(it.set) == kindPolicy || it.set == "strict" || it.set == "policed" {
			return true
		}
	}
	return false
}

// renewed returns a grant with the time that it has left, as a table that is rebuilt has it.
func renewed(it item) item {
	if it.elem.Timeout != 0 {
		it.elem.Timeout = max(it.elem.Expires, minGrant)
	}
	return it
}

// sweepPolicies ends the connections that the policies forbid.
func (s *syncTx) sweepPolicies(ctx context.Context, all bool) error {
	sw := policySweep{
		n: s.n, old: s.policies.had, now: s.policies.want, grants: make(map[setKey]bool),
		all: all || s.policies.had == nil && len(s.policies.want) > 0,
	}
	for _, it := range s.want {
		if isGrant(it.set) {
			sw.grants[it.setKey()] = true
		}
	}
	if !sw.all { // what did not change is not looked at
		sw.now = maps.Clone(sw.now)
		maps.DeleteFunc(sw.now, func(a netip.Addr, p Policy) bool {
			old, ok := sw.old[a]
			return ok && old.record() == p.record()
		})
	}
	return sw.run(ctx)
}

// policiesOfNetwork returns the elements of the policies of addresses that were the network's and are
// not any more, with the count of those that it keeps.
func (n *NAT) policiesOfNetwork(ctx context.Context, c nft.Conn, iface string, had, want []addrRange) (gone []item, policed []item, err error) {
	kept := func(r addrRange) bool {
		return slices.ContainsFunc(want, func(w addrRange) bool { return w.covers(r) })
	}
	if !slices.ContainsFunc(had, func(r addrRange) bool { return !kept(r) }) {
		return nil, nil, nil
	}
	found, err := c.Lookup(ctx, n.table, nft.Query{Set: "policed_addrs", Key: ifname(iface)})
	if err != nil || found[0] == nil {
		return nil, nil, err
	}
	items, err := n.readPart(ctx, c, func(f *family46) []string { return []string{f.policy, f.grant} })
	if err != nil {
		return nil, nil, err
	}
	all, err := policiesOf(items)
	if err != nil {
		return nil, nil, damagedPolicy(err)
	}
	among := func(ranges []addrRange, a netip.Addr) bool {
		return slices.ContainsFunc(ranges, func(r addrRange) bool { return r.contains(a) })
	}
	maps.DeleteFunc(all, func(a netip.Addr, _ Policy) bool { return !among(had, a) || among(want, a) })
	if gone, err = all.items(); err != nil {
		return nil, nil, err
	}
	for _, it := range items {
		if !isGrant(it.set) {
			continue
		}
		if _, ok := all[grantedTo(it)]; ok {
			gone = append(gone, it)
		}
	}
	old := addrsOf(found[0])
	gone = append(gone, policedItems(iface, old)...)
	return gone, policedItems(iface, old-min(old, uint32(len(all)))), nil
}

// rangesOf returns the addresses of a network in its elements. What cannot be decoded is none.
func rangesOf(items []item) (all []addrRange) {
	for _, it := range items {
		if it.set != families[0].same && it.set != families[1].same {
			continue
		}
		if e, err := decodeAddrs(it); err == nil {
			all = append(all, e.addrRange)
		}
	}
	return all
}
