package nat

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
)

// stays reports whether an element stays whatever the state says: a fact of the host, or what
// Owners excludes. nets are the interfaces of the state's networks.
func (s State) stays(it item, nets map[string]bool) bool {
	switch kindOf(it.set) {
	case kindFact:
		return true
	case kindOwned:
		return !s.owns(it.elem.Comment)
	case kindDerived, kindPolicy:
		return false
	}
	return s.Owners != nil && !nets[it.network()]
}

// wantNetworks adds the elements of the networks, and plans the changes of the host's links.
func (s *syncTx) wantNetworks(ctx context.Context) error {
	for _, it := range s.want { // of networks that stay
		if !addresses(it.set) {
			continue
		}
		for _, net := range s.nets {
			if err := overlapsElement(net, it); err != nil {
				return fmt.Errorf("network %s: %w", net.Interface, err)
			}
		}
	}
	for _, net := range s.nets {
		s.want = append(s.want, net.items()...)
	}
	if s.desired.Owners != nil {
		var err error
		if s.want, err = completeNetworks(s.want); err != nil {
			return err
		}
	}
	cover, err := coverItems(s.want)
	if err != nil {
		return err
	}
	s.want = append(s.want, cover...)
	r := recordsOf(s.want)
	s.plan = new(plan)
	if len(s.nets)+len(r.items)+len(flowing(s.want)) == 0 {
		return nil
	}
	if s.plan, err = s.n.planLinks(ctx, s.c, r, s.nets...); err != nil {
		return err
	}
	s.want, s.plan.gone = replaceItems(s.want, s.plan.gone, nil), nil
	return nil
}

// completeNetworks returns the items with what their networks lack: what is derived, and what a table
// of an older version does not have. Addresses that an older version has otherwise are replaced.
func completeNetworks(items []item) ([]item, error) {
	var of []item
	for _, it := range items {
		if kindOf(it.set) == kindNetwork || slices.Contains(pinholeSets, it.set) {
			of = append(of, it)
		}
	}
	nets, err := networksOf(of)
	if err != nil {
		return nil, err
	}
	want := make(map[setKey]item)
	known := make(map[string]bool)
	for _, net := range nets {
		known[net.Interface] = true
		for _, it := range net.effective().items() {
			want[it.setKey()] = it
		}
	}
	items = slices.DeleteFunc(items, func(it item) bool {
		w, wanted := want[it.setKey()]
		if (addresses(it.set) || isNear(it.set)) && known[it.network()] && (!wanted || w.elem.Comment != it.elem.Comment) {
			return true
		}
		if !isPortSet(it.set) {
			delete(want, it.setKey())
		}
		return false
	})
	missing := slices.Collect(maps.Values(want))
	slices.SortFunc(missing, func(a, b item) int {
		return cmp.Or(cmp.Compare(setOrder()[a.set], setOrder()[b.set]), bytes.Compare(a.elem.Key, b.elem.Key))
	})
	return append(items, missing...), nil
}

// addresses reports whether a set holds the addresses of networks.
func addresses(set string) bool {
	return slices.ContainsFunc(families[:], func(f *family46) bool { return set == f.same || set == f.nets || set == f.trusted || set == f.far })
}

// facts returns the facts of the host that the table holds after the commit.
func (s *syncTx) facts() []item {
	return append(itemsOf(s.want, kindFact), s.plan.facts...)
}

// finishNetworks writes the settings of the wanted networks, and restores those that no network
// needs, or that another program has made a router's.
func (s *syncTx) finishNetworks(ctx context.Context) error {
	if err := s.n.forward(ctx, s.c, s.plan); err != nil {
		return err
	}
	gone, err := s.n.unneeded(ctx, s.c, recordsOf(append(slices.Clone(s.want), s.plan.facts...)))
	if err != nil || len(gone.items) == 0 {
		return err
	}
	return s.n.restoreLinks(ctx, s.c)
}
