package nat

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// A portMatch compares the ports of a table with those of a state while the table is read. After a
// restart they are the same, so Sync keeps neither the elements that are right, nor those that it
// wants and the table has: of 100,000 ports, that is most of its memory and time.
type portMatch struct {
	ports []Port  // of the state; one element for each
	order []int32 // of ports, as compareHost has them; nil until find
	there []bool  // the table has the element
	refs  refChange
	right map[portRef]bool // the table has this count
	all   bool             // missing returns what is there, too

	room []byte // for the element that is compared
}

// reset begins a comparison with ports, of which no two overlap.
func (m *portMatch) reset(ports []Port) {
	if m.there == nil {
		m.ports = expand(ports)
		m.there = make([]bool, len(m.ports))
	}
	clear(m.there)
	m.refs, m.right, m.all = refChange{}, nil, false
}

// count sets the counts that the table should have beside the other ports, which the state does not
// speak for.
func (m *portMatch) count(others []Port) {
	m.refs, m.right = refChange{}, make(map[portRef]bool)
	m.refs.add(others, 1)
	m.refs.add(m.ports, 1)
}

// find returns the index of the port that begins with a host port.
func (m *portMatch) find(p *Port) (int, bool) {
	if m.order == nil {
		m.order = make([]int32, len(m.ports))
		for i := range m.order {
			m.order[i] = int32(i)
		}
		slices.SortFunc(m.order, func(i, j int32) int { return compareHost(&m.ports[i], &m.ports[j]) })
	}
	at, ok := slices.BinarySearchFunc(m.order, p, func(i int32, p *Port) int { return compareHost(&m.ports[i], p) })
	if !ok {
		return 0, false
	}
	return int(m.order[at]), true
}

// minKeys is the number of elements from which on a map is read by their keys, which is faster then.
const minKeys = 48 << 10

// len returns how many elements of a map the state wants. It is 0 for a set that cannot be read by keys.
func (m *portMatch) len(set string) (n int) {
	if !isPortSet(set) || slices.Contains(rangeSets, set) {
		return 0
	}
	for i := range m.ports {
		if setOf(&m.ports[i]) == set {
			n++
		}
	}
	return n
}

// keys are the keys of those elements, with the index of the port of each. A key is valid until the
// next one. The order is backwards: ports that are new are mostly the last, and the first key too many
// that the table lacks ends the reading by keys.
func (m *portMatch) keys(set string) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for i := range slices.Backward(m.ports) {
			if setOf(&m.ports[i]) != set {
				continue
			}
			m.room = m.room[:0]
			if !yield(i, m.ports[i].itemIn(&m.room).elem.Key) {
				return
			}
		}
	}
}

// forget makes the elements of a set unread.
func (m *portMatch) forget(set string) {
	if isPortSet(set) && slices.Contains(m.there, true) {
		for i := range m.there {
			m.there[i] = m.there[i] && setOf(&m.ports[i]) != set
		}
	}
	if isRefSet(set) {
		v6 := familyOfSet(set).v6
		for r := range m.right {
			if r.v6 == v6 {
				delete(m.right, r)
			}
		}
	}
}

// matcher returns what reports whether an element of a set is one that the state wants, and notes
// that it is there. It is nil for a set that has no such elements.
func (m *portMatch) matcher(set string) func(*nft.Element) bool {
	f := familyOfSet(set)
	switch {
	case isPortSet(set):
		var p Port // one for all
		return func(e *nft.Element) bool {
			var err error
			if p, err = decodePort(f, item{set, *e}); err != nil {
				return false
			}
			i, ok := m.find(&p)
			return ok && m.isThere(i, set, e)
		}
	case isRefSet(set):
		return func(e *nft.Element) bool {
			r, ok := refOf(set, e)
			n, wanted := m.refs.of(r)
			if !ok || !wanted || n != refCount(e) || e.Comment != "" {
				return false
			}
			m.right[r] = true
			return true
		}
	}
	return nil
}

// isThere reports whether an element of a set is that of a port, and notes that it is there.
func (m *portMatch) isThere(port int, set string, e *nft.Element) bool {
	m.room = m.room[:0]
	// An element of another set may begin with the same host port.
	it := m.ports[port].itemIn(&m.room)
	same := it.set == set && it.elem.Equal(e)
	m.there[port] = m.there[port] || same
	return same
}

// missing returns the wanted elements that the table lacks.
func (m *portMatch) missing() (items []item) {
	n := len(m.ports) + len(m.refs.all) - m.kept()
	items = make([]item, 0, n)
	room := make([]byte, 0, 20*n)
	for i := range m.ports {
		if m.all || !m.there[i] {
			items = append(items, m.ports[i].itemIn(&room))
		}
	}
	for _, r := range m.refs.all {
		if m.all || !m.right[r.portRef] {
			items = append(items, r.item(&room, r.n))
		}
	}
	return items
}

// holds reports whether the table has a wanted element of a port, or a count of ports.
func (m *portMatch) holds(it item) bool {
	if isPortSet(it.set) {
		p, err := decodeItem(it)
		if err != nil {
			return false
		}
		i, ok := m.find(&p)
		return ok && m.there[i]
	}
	r, ok := refOf(it.set, &it.elem)
	return ok && m.right[r]
}

// kept returns the number of elements that missing leaves out.
func (m *portMatch) kept() (n int) {
	if m.all {
		return 0
	}
	for _, there := range m.there {
		if there {
			n++
		}
	}
	return n + len(m.right)
}

// complete reports whether the table has all wanted elements.
func (m *portMatch) complete() bool { return m.kept() == len(m.ports)+len(m.refs.all) }

// published calls yield for each port that the table has and the state wants.
func (m *portMatch) published(yield func(Port) bool) {
	if m == nil {
		return
	}
	for i, there := range m.there {
		if there && !yield(m.ports[i]) {
			return
		}
	}
}

// has returns the port of the table, and of the state, that begins with a host port.
func (m *portMatch) has(proto Proto, host netip.AddrPort) (Port, bool) {
	if m == nil {
		return Port{}, false
	}
	i, ok := m.find(&Port{Proto: proto, Host: host})
	if !ok || !m.there[i] {
		return Port{}, false
	}
	return m.ports[i].normal(), true
}

// split returns the ports of the state that the table has, and those that it lacks.
func (m *portMatch) split(ports []Port) (old, fresh []Port) {
	if !slices.Contains(m.there, false) {
		return ports, nil
	}
	for i := range ports {
		if at, ok := m.find(&ports[i]); ok && m.there[at] {
			old = append(old, ports[i])
		} else {
			fresh = append(fresh, ports[i])
		}
	}
	return old, fresh
}
