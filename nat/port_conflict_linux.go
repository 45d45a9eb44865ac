package nat

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// A conflict is a wanted port and a published one that take the same host port.
type conflict struct {
	want, held Port
	item       item // of the one held
}

// conflictQueries returns the lookups that find published ports in conflict with the given ones.
// of[i] is the index of the port that lookup i is for. They are needed because the kernel checks
// for duplicates inside one map only.
//
// The cost does not depend on the number of published single ports, because each lookup finds one
// element. For a wildcard port, only the reference count is looked up. If it is not 0, conflicts
// searches the single addresses to name them.
func conflictQueries(ports []Port) (ask []nft.Query, of []int) {
	room := make([]byte, 0, 24*len(ports))
	ask, of = make([]nft.Query, 0, 3*len(ports)), make([]int, 0, 2*len(ports)) // ask with room for more
	for i, p := range ports {
		f, cl := familyOf(p.Host.Addr()), p.claim()
		for port := int(cl.First); port <= int(cl.Last); port++ {
			at := len(room)
			room = appendKey(room, cl.Addr, Proto(cl.Proto), uint16(port))
			key := room[at:len(room):len(room)]
			short := key[len(key)-8:]
			other := nft.Query{Set: f.pub, Key: key}
			if cl.Wildcard() {
				other = nft.Query{Set: f.refs, Key: short}
			}
			ask, of = append(ask, nft.Query{Set: f.any, Key: short}, other), append(of, i, i)
		}
	}
	return ask, of
}

// conflicts returns the conflicts of the ports: those that conflictQueries found, and those with
// ranges. It reads all ranges, because there are few.
func (tx *publishTx) conflicts(ctx context.Context, found []*nft.Element) ([]conflict, error) {
	var all []conflict
	var spread []Port // wildcard ports that single addresses conflict with
	for i, e := range found {
		if e == nil {
			continue
		}
		p, set := tx.add[tx.of[i]], tx.conflictQueries[i].Set
		if set == familyOf(p.Host.Addr()).refs {
			spread = append(spread, p)
			continue
		}
		it := item{set, *e}
		held, err := decodeItem(it)
		if err != nil {
			return nil, err
		}
		all = append(all, conflict{p, held, it})
	}
	for _, f := range families {
		for set, wanted := range map[string][]Port{f.pub: spread, f.rng: tx.add} {
			if !slices.ContainsFunc(wanted, func(p Port) bool { return familyOf(p.Host.Addr()) == f }) {
				continue
			}
			var err error
			if all, err = tx.search(ctx, set, wanted, all); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// search reads a set of ports, and adds those that overlap the wanted ports.
func (tx *publishTx) search(ctx context.Context, set string, wanted []Port, all []conflict) ([]conflict, error) {
	elems, err := tx.c.Elements(ctx, tx.n.table, set)
	if err != nil {
		return nil, err
	}
	for _, e := range elems {
		it := item{set, e}
		held, err := decodeItem(it)
		if err != nil {
			return nil, err
		}
		for _, p := range wanted {
			if p.claim().Overlaps(held.claim()) {
				all = append(all, conflict{p, held, it})
				break
			}
		}
	}
	return all, nil
}

// errTaken reports a host port that is published already.
type errTaken struct{ held Port }

func (e errTaken) Error() string {
	return fmt.Sprintf("the host port is taken: %v is published by %q", e.held, e.held.Owner)
}

func (e errTaken) Is(target error) bool { return target == os.ErrExist }
