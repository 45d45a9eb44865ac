package nat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// kind says what the elements of a set are about.
type kind int

const (
	kindNetwork kind = iota // a network, by its interface
	kindOwned               // a port or an opening, by its owner
	kindUse                 // what follows from others
	kindFact                // the host
)

func kindOf(set string) kind {
	switch set {
	case "lo_ok", "localnet", "listed", "bridged":
		return kindFact
	}
	for _, f := range families {
		switch set {
		case f.pub, f.any, f.rng, f.route:
			return kindOwned
		case f.uses:
			return kindUse
		case f.flipped:
			return kindFact
		}
	}
	return kindNetwork
}

// stays reports whether an element that is there stays, whatever the state says:
// facts do, and so does what a state with Owners does not speak for. nets are the
// interfaces of its networks.
func (s State) stays(it item, nets map[string]bool) bool {
	switch kindOf(it.set) {
	case kindFact:
		return true
	case kindOwned:
		return !s.owns(it.elem.Comment)
	case kindUse:
		return false
	}
	if s.Owners == nil {
		return false
	}
	key := it.elem.Key
	if len(key) == 2*len(ifname("")) { // a pair belongs to the network that it comes from
		key = key[:len(ifname(""))]
	}
	return !nets[string(key[len(key)-len(ifname("")):])]
}

// wantNetworks adds what the table shall say about networks, and plans what has to
// be changed of the host's links for them.
func (s *syncing) wantNetworks(ctx context.Context) error {
	for _, it := range s.want { // of networks that stay
		if it.set != families[0].same && it.set != families[1].same {
			continue
		}
		for _, net := range s.nets {
			if err := overlapsElement(net, it.elem); err != nil {
				return fmt.Errorf("network %s: %w", net.Interface, err)
			}
		}
	}
	for _, net := range s.nets {
		s.want = append(s.want, net.items()...)
	}
	networks := make(map[string]bool)
	var f flipped
	for _, it := range s.want {
		switch it.set {
		case "ifs":
			networks[nameOf(it.elem.Key)] = true
		case "bridged":
			f.bridged = append(f.bridged, it.elem)
		case families[0].flipped:
			f.four = append(f.four, it.elem)
		case families[1].flipped:
			f.six = append(f.six, it.elem)
		}
	}
	s.last = len(networks) == 0 && len(f.four)+len(f.six) > 0
	// The setting before its record, which says what to set back.
	var err error
	s.want = slices.DeleteFunc(s.want, func(it item) bool {
		name := nameOf(it.elem.Key)
		gone := it.set == "localnet" && !networks[name]
		if gone {
			err = errors.Join(err, clearLocalnet(ctx, s.n.ns, name))
		}
		return gone
	})
	s.plan = new(plan)
	if err == nil && len(s.nets) > 0 {
		s.plan, err = planLinks(ctx, s.n.ns, f, s.nets...)
	}
	return err
}

// finishNetworks writes the settings of the networks that are wanted; after the
// last one, it sets back what they changed.
func (s *syncing) finishNetworks(ctx context.Context) error {
	err := s.plan.apply(ctx, s.n.ns)
	if err == nil && s.last {
		err = s.n.restoreIfLast(ctx, s.c)
	}
	return err
}

// memory is what a NAT keeps in memory.
type memory struct {
	turn      chan struct{}   // holds a token while a change is under way, which has sockets
	sockets   map[spot]socket // reserved ports
	stock     stock           // sockets for the next ones
	mark      uint32          // of them
	contested []Port          // those that the last reserve could not bind, for a fellow has them
	published int             // about how many elements the maps of published ports have
	swept     bool            // flows that the table contradicts were flushed

	mu      sync.Mutex // guards the following fields
	facts   []item     // what the table said about the host when it was last read
	closed  bool
	proxies map[*Proxy]bool
}

// remember keeps the facts of the host among the items, because the kernel does
// not tell them any more once another program has removed the table.
func (n *NAT) remember(items []item) {
	var facts []item
	for _, it := range items {
		if kindOf(it.set) == kindFact {
			facts = append(facts, it)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.facts = facts
}

// forgotten are the remembered facts that are not among the items.
func (n *NAT) forgotten(items []item) []item {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.facts), func(fact item) bool {
		return slices.ContainsFunc(items, func(it item) bool {
			return it.place() == fact.place()
		})
	})
}
