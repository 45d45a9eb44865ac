package main

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/boxwire/boxwire/internal/topology"
)

// A view is what the pages show at one moment. It does not change.
type view struct {
	seq      uint64
	at       time.Time
	snapshot *topology.Snapshot
	trouble  string        // why the machine cannot be read since, or ""
	next     chan struct{} // closed when there is a later view

	mu       sync.Mutex
	drawings map[string]*drawing // by the groups that they unfold
	index    func() []entry      // what search finds
	folded   func() map[string]string
}

func newView(seq uint64, s *topology.Snapshot, trouble string) *view {
	v := &view{seq: seq, at: time.Now(), snapshot: s, trouble: trouble, next: make(chan struct{}), drawings: make(map[string]*drawing)}
	v.index = sync.OnceValue(func() []entry { return entries(s) })
	v.folded = sync.OnceValue(v.groups)
	return v
}

// draw draws the view once for all pages that unfold the same groups.
func (v *view) draw(groups []string) (*drawing, error) {
	key := strings.Join(groups, "\x00")
	v.mu.Lock()
	defer v.mu.Unlock()
	if d := v.drawings[key]; d != nil {
		return d, nil
	}
	d, err := draw(v.snapshot, groups)
	if err != nil {
		return nil, err
	}
	// A page keeps what it was sent; more is not kept than pages can be open.
	if len(v.drawings) < maxPages {
		v.drawings[key] = d
	}
	return d, nil
}

// groups says for each part that is folded which group it is in.
func (v *view) groups() map[string]string {
	const most = 16 // groups that are tried
	in := make(map[string]string)
	folded, err := draw(v.snapshot, nil)
	if err != nil {
		return in
	}
	tried := 0
	for _, p := range folded.parts {
		group, ok := strings.CutPrefix(p.key, "more-")
		if !ok {
			continue
		}
		if tried++; tried > most {
			break
		}
		unfolded, err := draw(v.snapshot, []string{group})
		if err != nil {
			break
		}
		for _, q := range unfolded.parts {
			if _, shown := folded.at[q.key]; !shown {
				in[q.key] = group
			}
		}
	}
	return in
}

// Bounds of what a page may ask to be unfolded.
const (
	maxGroups   = 64
	maxGroupLen = 200
)

// canonical brings the groups of a request into one order.
func canonical(groups []string) []string {
	groups = slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return g == "" || len(g) > maxGroupLen })
	slices.Sort(groups)
	groups = slices.Compact(groups)
	return groups[:min(len(groups), maxGroups)]
}
