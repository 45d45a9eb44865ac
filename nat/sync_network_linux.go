package nat

import (
	"context"
	"fmt"
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
		if it.set != families[0].same && it.set != families[1].same {
			continue
		}
		for _, net := range s.nets {
			if err := overlapsElement(net, familyOfSet(it.set), it.elem); err != nil {
				return fmt.Errorf("network %s: %w", net.Interface, err)
			}
		}
	}
	for _, net := range s.nets {
		s.want = append(s.want, net.items()...)
	}
	if s.desired.Owners != nil {
		missing, err := missingItems(s.want)
		if err != nil {
			return err
		}
		s.want = append(s.want, missing...)
	}
	r := recordsOf(s.want)
	s.plan = new(plan)
	if len(s.nets)+len(r.items) == 0 {
		return nil
	}
	var err error
	if s.plan, err = planLinks(ctx, s.n.ns, r, s.nets...); err != nil {
		return err
	}
	s.want, s.plan.gone = replaceItems(s.want, s.plan.gone, nil), nil
	return nil
}

// missingItems returns the items that the networks among the items lack: derived ones, and those
// that a table of an older version does not have.
func missingItems(items []item) (missing []item, err error) {
	there := make(map[setKey]bool)
	var of []item
	for _, it := range items {
		if kindOf(it.set) == kindNetwork || slices.Contains(pinholeSets, it.set) {
			of = append(of, it)
		}
		if !isPortSet(it.set) {
			there[it.setKey()] = true
		}
	}
	nets, err := networksOf(of)
	for _, net := range nets {
		for _, it := range net.items() {
			if !there[it.setKey()] {
				missing = append(missing, it)
			}
		}
	}
	return missing, err
}

// facts returns the facts of the host that the table holds after the commit.
func (s *syncTx) facts() []item {
	return append(itemsOf(s.want, kindFact), s.plan.facts...)
}

// finishNetworks writes the settings of the wanted networks, and restores those that no network
// needs.
func (s *syncTx) finishNetworks(ctx context.Context) error {
	err := s.n.forward(ctx, s.c, s.plan)
	if r := recordsOf(s.want); err == nil && len(r.unneeded().items) > 0 {
		err = s.n.restoreLinks(ctx, s.c)
	}
	return err
}
