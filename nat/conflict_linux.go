package nat

import (
	"context"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/nft"
)

// A conflict is a port that is wanted and another that is published and takes a
// host port of it.
type conflict struct {
	want, held Port
	item       item // of the one held
}

// conflicts looks for what is published and overlaps the ports. The kernel checks
// inside one map only. What this costs does not depend on how many single ports
// are published: each is looked up, and only where uses says that a port wanted
// on all addresses is published on single ones are these searched for, to name
// them. Of ranges there are few, and they are read.
func (n *NAT) conflicts(ctx context.Context, c nft.Conn, ports []Port) ([]conflict, error) {
	var ask []nft.Query
	var asked []Port
	for _, p := range ports {
		f, cl := familyOf(p.Host.Addr()), p.claim()
		for port := int(cl.lo); port <= int(cl.hi); port++ {
			key := appendKey(nil, cl.addr, cl.proto, uint16(port))
			short := key[len(key)-8:]
			ask = append(ask, nft.Query{Set: f.any, Key: short})
			if cl.wild() {
				ask = append(ask, nft.Query{Set: f.uses, Key: short})
			} else {
				ask = append(ask, nft.Query{Set: f.pub, Key: key})
			}
			asked = append(asked, p, p)
		}
	}
	found, err := c.Lookup(ctx, n.table, ask...)
	if err != nil {
		return nil, err
	}
	var all []conflict
	search := map[string][]Port{} // by the set to be searched
	for i, e := range found {
		switch f := familyOf(asked[i].Host.Addr()); {
		case e == nil:
		case ask[i].Set == f.uses:
			search[f.pub] = append(search[f.pub], asked[i])
		default:
			it := item{ask[i].Set, *e}
			held, err := decodeItem(it)
			if err != nil {
				return nil, err
			}
			all = append(all, conflict{asked[i], held, it})
		}
	}
	for _, p := range ports {
		set := familyOf(p.Host.Addr()).rng
		search[set] = append(search[set], p)
	}
	return n.search(ctx, c, search, all)
}

// search reads sets of ports and adds those that overlap the ports wanted.
func (n *NAT) search(ctx context.Context, c nft.Conn, wanted map[string][]Port, all []conflict) ([]conflict, error) {
	for set, ports := range wanted {
		elems, err := c.Elements(ctx, n.table, set)
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			it := item{set, e}
			held, err := decodeItem(it)
			if err != nil {
				return nil, err
			}
			for _, p := range ports {
				if p.claim().meets(held.claim()) {
					all = append(all, conflict{p, held, it})
					break
				}
			}
		}
	}
	return all, nil
}

// settle sorts conflicts out: what belongs to owners that are known to be gone
// may be deleted, and is returned; the first of any other is an error for the
// port that is wanted.
func (n *NAT) settle(conflicts []conflict) (dead []item, p Port, err error) {
	seen := make(map[Port]bool) // one may be in the way of several
	for _, x := range conflicts {
		if n.alive == nil || n.alive(x.held.Owner) {
			return nil, x.want, errTaken{x.held}
		}
		if !seen[x.held] {
			dead = append(dead, x.item)
		}
		seen[x.held] = true
	}
	return dead, Port{}, nil
}

// errTaken is a host port that is published already.
type errTaken struct{ held Port }

func (e errTaken) Error() string {
	return fmt.Sprintf("the host port is taken: %v is published by %q", e.held, e.held.Owner)
}

func (e errTaken) Is(target error) bool { return target == os.ErrExist }
