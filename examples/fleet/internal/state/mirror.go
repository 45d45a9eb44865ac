package state

import (
	"bytes"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Mirror follows the pairs of a fleet as they change, and makes Snapshots of them.
//
// A Snapshot costs what has changed since the one before: a value is decoded once, and a map in which nothing changed is that of
// the Snapshot before. A Snapshot that was made stays as it is. A Mirror is for one goroutine at a time.
type Mirror struct {
	values map[string][]byte // every pair, by key
	bad    map[string]error  // the keys of values that are ignored, and why

	// What the values say. The nodes are valid by themselves. Snapshot finds out whether they have claimed their prefixes.
	config *Config
	nodes  map[ID]Node
	claims map[netip.Prefix]ID
	alive  map[ID]Alive
	dead   map[ID]Dead

	last      *Snapshot // nil before the first
	unclaimed []Skipped // the nodes that last has not because of their prefixes
	changed   kinds     // since last
}

// kinds are kinds of keys.
type kinds uint8

const (
	ofConfig kinds = 1 << iota
	ofNode
	ofClaim
	ofAlive
	ofDead
	ofOther // no key of a fleet
)

// kindOf is the kind of a key, and the part of the key that follows the kind.
func kindOf(key string) (kinds, string) {
	if key == ConfigKey {
		return ofConfig, ""
	}
	word, rest, _ := strings.Cut(key, "/")
	switch word {
	case "claim":
		return ofClaim, rest
	case "node":
		return ofNode, rest
	case "alive":
		return ofAlive, rest
	case "dead":
		return ofDead, rest
	}
	return ofOther, key
}

// NewMirror is a Mirror of a fleet without pairs.
func NewMirror() *Mirror {
	return &Mirror{
		values: map[string][]byte{}, bad: map[string]error{},
		nodes: map[ID]Node{}, claims: map[netip.Prefix]ID{}, alive: map[ID]Alive{}, dead: map[ID]Dead{},
	}
}

// Put sets the value of a key. The Mirror keeps the value, and the caller must not change it.
func (m *Mirror) Put(p Pair) {
	if value, ok := m.values[p.Key]; ok && bytes.Equal(value, p.Value) {
		return
	}
	m.Delete(p.Key)
	kind, rest := kindOf(p.Key)
	m.values[p.Key] = p.Value
	m.changed |= kind
	if err := m.add(kind, rest, p.Value); err != nil {
		m.bad[p.Key] = err
	}
}

// Delete removes a key, if it is there.
func (m *Mirror) Delete(key string) {
	if _, ok := m.values[key]; !ok {
		return
	}
	kind, rest := kindOf(key)
	m.changed |= kind
	delete(m.values, key)
	if _, bad := m.bad[key]; bad {
		delete(m.bad, key)
		return // no map has it
	}
	if kind == ofConfig {
		m.config = nil
		return
	}
	if kind == ofClaim {
		if prefix, err := ParseClaimKey("claim/" + rest); err == nil {
			delete(m.claims, prefix)
		}
		return
	}
	id, err := ParseID(rest)
	if err != nil {
		return
	}
	switch kind {
	case ofNode:
		delete(m.nodes, id)
	case ofAlive:
		delete(m.alive, id)
	case ofDead:
		delete(m.dead, id)
	}
}

// Replace makes the pairs exactly those given.
func (m *Mirror) Replace(pairs iter.Seq[Pair]) {
	gone := maps.Clone(m.values)
	for p := range pairs {
		delete(gone, p.Key)
		m.Put(p)
	}
	for key := range gone {
		m.Delete(key)
	}
}

// add decodes a value into the map of its kind.
func (m *Mirror) add(kind kinds, rest string, value []byte) error {
	switch kind {
	case ofConfig:
		var c Config
		if err := decode(value, &c, &c.Version); err != nil {
			return err
		}
		if err := c.Validate(); err != nil {
			return err
		}
		m.config = &c
		return nil
	case ofClaim:
		prefix, err := ParseClaimKey("claim/" + rest)
		if err != nil {
			return err
		}
		var c Claim
		if err := decode(value, &c, &c.Version); err != nil {
			return err
		}
		if c.Node == (ID{}) {
			return invalid("no node")
		}
		m.claims[prefix] = c.Node
		return nil
	case ofNode:
		var n Node
		return add(rest, value, m.nodes, &n, &n.Version, &n.ID, func() error { return n.Validate() })
	case ofAlive:
		var a Alive
		return add(rest, value, m.alive, &a, &a.Version, &a.ID, nil)
	case ofDead:
		var d Dead
		return add(rest, value, m.dead, &d, &d.Version, nil, func() error { return d.Validate() })
	}
	return invalid("no key of a fleet")
}

// add decodes a value whose key ends with a node's ID. The value's own ID, if it has one, must be the same.
func add[T any](key string, value []byte, to map[ID]T, v *T, version *int, own *ID, validate func() error) error {
	id, err := ParseID(key)
	if err != nil {
		return invalid("%v", err)
	}
	if err := decode(value, v, version); err != nil {
		return err
	}
	if own != nil && *own != id {
		return invalid("the value is of node %v", *own)
	}
	if validate != nil {
		if err := validate(); err != nil {
			return err
		}
	}
	to[id] = *v
	return nil
}

// Snapshot is the fleet at a revision. It must not be changed: the Snapshots of one Mirror share what is the same.
func (m *Mirror) Snapshot(revision int64) *Snapshot {
	old, changed := m.last, m.changed
	if old == nil {
		old, changed = &Snapshot{}, ^kinds(0)
	}
	s := *old
	s.Revision, s.Config = revision, m.config
	if changed&ofClaim != 0 {
		s.Claims = maps.Clone(m.claims)
	}
	if changed&ofAlive != 0 {
		s.Alive = maps.Clone(m.alive)
	}
	if changed&ofDead != 0 {
		s.Dead = maps.Clone(m.dead)
	}
	if changed&(ofNode|ofClaim|ofConfig) != 0 {
		s.Nodes = maps.Clone(m.nodes)
		m.unclaimed = nil
		for id, n := range s.Nodes {
			if err := s.checkPrefixes(n); err != nil {
				m.unclaimed = append(m.unclaimed, Skipped{NodeKey(id), err})
			}
		}
		for _, n := range m.unclaimed { // only now: the messages name nodes
			_, rest := kindOf(n.Key)
			id, _ := ParseID(rest)
			delete(s.Nodes, id)
		}
	}
	if changed != 0 {
		s.Skipped = slices.Clone(m.unclaimed)
		for key, err := range m.bad {
			s.Skipped = append(s.Skipped, Skipped{key, err})
		}
		slices.SortFunc(s.Skipped, func(a, b Skipped) int { return strings.Compare(a.Key, b.Key) })
	}
	m.last, m.changed = &s, 0
	return &s
}
