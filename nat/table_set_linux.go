package nat

import (
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Only its set says what an element is about. Keys of different sets can have the same length: a
// pair of interfaces and an IPv6 prefix with its interface, for example.

// setPortGroup has the link group of the ports of a network's bridge. No rule of the inet table reads it.
const setPortGroup = "port_group"

// setFlowtable has the networks with the option Flowtable, the flowing ones. No rule of the inet table reads it.
const setFlowtable = "flowing"

// kind is what the elements of a set are about.
type kind int

const (
	kindNetwork kind = iota // a network, by its interface
	kindOwned               // a port or a pinhole, by its owner
	kindDerived             // derived from elements of other sets
	kindFact                // the host
	kindPolicy              // a policy, by the box
)

func kindOf(set string) kind {
	switch set {
	case "lo_ok", "localnet", "listed", "bridged":
		return kindFact
	case "spans", "policed", "policed_addrs":
		return kindDerived
	}
	if slices.Contains(policySetNames(), set) {
		return kindPolicy
	}
	for _, f := range families {
		switch set {
		case f.pub, f.any, f.rng, f.route, f.echo:
			return kindOwned
		case f.refs, f.own, f.owns, f.cover:
			return kindDerived
		case f.enabled:
			return kindFact
		}
	}
	return kindNetwork
}

// setsOfKind are the sets whose elements are about one of the kinds.
func setsOfKind(kinds ...kind) (sets []string) {
	for _, set := range setNames() {
		if slices.Contains(kinds, kindOf(set)) {
			sets = append(sets, set)
		}
	}
	return sets
}

// itemsOf are those of the items that are about a kind.
func itemsOf(items []item, k kind) (some []item) {
	for _, it := range items {
		if kindOf(it.set) == k {
			some = append(some, it)
		}
	}
	return some
}

// familyOfSet returns the family of the addresses in a set: IPv6 for the sets of IPv6, whose names
// end with 6, else IPv4.
func familyOfSet(set string) *family46 {
	if strings.HasSuffix(set, "6") {
		return families[1]
	}
	return families[0]
}

// nameAt is where the first name of an interface begins in the keys of each set that
// has one in them. Each field of a key is padded to 4 bytes (NFT_REG32_SIZE).
var nameAt = sync.OnceValue(func() map[string]int {
	at := make(map[string]int)
	for _, s := range skeletonSets() {
		i := slices.Index(s.Key, typeIfname)
		if i < 0 {
			continue
		}
		n := 0
		for _, f := range s.Key[:i] {
			n += (int(f.Len) + 3) &^ 3
		}
		at[s.Name] = n
	}
	return at
})

// network returns the interface of the network that the element is about: for a pair the first one,
// for an element of nets4, nets6, far4 or far6 the one in the comment. It is "" for an element without
// an interface.
func (it item) network() string {
	for _, f := range families {
		if it.set == f.nets || it.set == f.far {
			return it.elem.Comment
		}
	}
	at, ok := nameAt()[it.set]
	if !ok || len(it.elem.Key) < at+unix.IFNAMSIZ {
		return ""
	}
	return nameOf(it.elem.Key[at : at+unix.IFNAMSIZ])
}
