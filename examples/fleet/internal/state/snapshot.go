package state

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Pair is a key, relative to Root, and its value.
type Pair struct {
	Key   string
	Value []byte
}

// Snapshot is all of a fleet at one revision of the store. Whoever has one may read it and must not change it.
type Snapshot struct {
	Revision int64
	Config   *Config // nil if the store has none, or none that is valid
	Nodes    map[ID]Node
	Claims   map[netip.Prefix]ID
	Alive    map[ID]Alive
	Dead     map[ID]Dead
	Skipped  []Skipped // what was ignored, sorted by key
}

// Skipped is something in the store that is ignored, and why.
type Skipped struct {
	Key string // relative to Root
	Err error
}

func (s Skipped) String() string { return fmt.Sprintf("%.100q: %v", s.Key, s.Err) }

// Decode makes a Snapshot of all pairs of a fleet at a revision.
//
// A node counts only for prefixes that it has claimed: one without a valid claim of each of its prefixes is skipped, because two
// nodes must never be sent the same boxes' packets. A claim whose node is unknown still holds its prefix.
func Decode(revision int64, pairs iter.Seq[Pair]) *Snapshot {
	m := NewMirror()
	for p := range pairs {
		m.Put(p)
	}
	return m.Snapshot(revision)
}

// MaxValue is the size of the largest value that is decoded, in bytes. What the agents write is below 2 KiB.
const MaxValue = 64 << 10

// decode reads a value of a version that is known.
func decode(value []byte, v any, version *int) error {
	if len(value) > MaxValue {
		return invalid("%d bytes: want at most %d", len(value), MaxValue)
	}
	if err := json.Unmarshal(value, v); err != nil {
		return invalid("%v", err)
	}
	return validVersion(*version)
}

// validVersion reports a version of a value that this program does not know.
func validVersion(version int) error {
	if version < 1 || version > Version {
		return invalid("version %d: this program knows 1 to %d", version, Version)
	}
	return nil
}

// checkPrefixes reports a prefix of the node that is not of the pools, or that it has not claimed.
func (s *Snapshot) checkPrefixes(n Node) error {
	var families [2]bool
	for _, p := range n.Prefixes {
		if s.Config != nil && !s.Config.Contains(p) {
			return invalid("prefix %v: not of the fleet's pools %v", p, s.Config.Pools)
		}
		switch holder, ok := s.Claims[p]; {
		case !ok:
			return invalid("prefix %v: not claimed", p)
		case holder != n.ID:
			return invalid("prefix %v: claimed by %s", p, s.Name(holder))
		}
		at := 0
		if p.Addr().Is6() {
			at = 1
		}
		if families[at] {
			return invalid("prefixes %v: two of one family", n.Prefixes)
		}
		families[at] = true
	}
	return nil
}

// Name is what people call a node: its name and the beginning of its ID, or the ID alone if the node is unknown.
func (s *Snapshot) Name(id ID) string {
	if n, ok := s.Nodes[id]; ok {
		return n.Name + " (" + id.Short() + ")"
	}
	return "node " + id.String()
}

// Sorted are the nodes, by name and ID.
func (s *Snapshot) Sorted() []Node {
	return slices.SortedFunc(maps.Values(s.Nodes), func(a, b Node) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID[:]), string(b.ID[:]))
	})
}

// Encode writes a value as it is stored.
func Encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("state: " + err.Error()) // none of the types fails
	}
	return b
}
