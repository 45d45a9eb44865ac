package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/boxwire/boxwire/internal/topology"
)

// Bounds of what is asked about ports that do not answer.
const (
	maxExplained = 64 // ports of a snapshot
	askers       = 4
	askTimeout   = 5 * time.Second
)

// explanations are why ports do not answer, by their keys.
type explanations map[string]explanation

// An explanation is valid as long as the snapshot finds the same fault.
type explanation struct{ fault, words string }

// explain asks about the ports of each snapshot that do not answer.
func (h *hub) explain(ctx context.Context, ask explainer, asked <-chan *topology.Snapshot) {
	if ask == nil {
		ask = func(context.Context, *topology.Snapshot, uint64, topology.Port) (string, error) { return "", nil }
	}
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-asked:
			if said := askAll(ctx, ask, s); ctx.Err() == nil {
				h.say(said)
			}
		}
	}
}

// askAll asks about the ports of a snapshot that do not answer, several at a time.
func askAll(ctx context.Context, ask explainer, s *topology.Snapshot) explanations {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var mu sync.Mutex
	said := make(explanations)
	var wg sync.WaitGroup
	slots, left := make(chan struct{}, askers), maxExplained
	for _, n := range s.Namespaces {
		for i := range n.Ports {
			p := n.Ports[i]
			if p.Fault == "" || left == 0 {
				continue
			}
			left--
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				words, err := ask(ctx, s, n.Inode, p)
				if err != nil || words == "" {
					return // the fault of the snapshot stays
				}
				mu.Lock()
				defer mu.Unlock()
				said[n.PortKey(&p)] = explanation{p.Fault, words}
			})
		}
	}
	wg.Wait()
	return said
}

// over returns the snapshot with what was explained instead of what it found itself.
func (e explanations) over(s *topology.Snapshot) *topology.Snapshot {
	if len(e) == 0 {
		return s
	}
	all := *s
	all.Namespaces = slices.Clone(s.Namespaces)
	for i, n := range all.Namespaces {
		if !slices.ContainsFunc(n.Ports, func(p topology.Port) bool { return p.Fault != "" }) {
			continue
		}
		own := *n
		own.Ports = slices.Clone(n.Ports)
		for j := range own.Ports {
			p := &own.Ports[j]
			if x, ok := e[n.PortKey(p)]; ok && x.fault == p.Fault {
				p.Fault = x.words
			}
		}
		all.Namespaces[i] = &own
	}
	return &all
}
