package nat

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
)

// A conflict is a port that is wanted and another that is published and takes a
// host port of it.
type conflict struct {
	want, held Port
	item       item // of the one held
}

// rivals ask for what is published and takes host ports of the ports: whose each
// question is says of, an index of ports. The kernel checks inside one map only.
//
// What this costs does not depend on how many single ports are published: each is
// looked up, and only where uses says that a port wanted on all addresses is
// published on single ones are these searched for, to name them.
func rivals(ports []Port) (ask []nft.Query, of []int) {
	room := make([]byte, 0, 24*len(ports))
	ask, of = make([]nft.Query, 0, 3*len(ports)), make([]int, 0, 2*len(ports)) // ask with room for more
	for i, p := range ports {
		f, cl := familyOf(p.Host.Addr()), p.claim()
		for port := int(cl.lo); port <= int(cl.hi); port++ {
			at := len(room)
			room = appendKey(room, cl.addr, cl.proto, uint16(port))
			key := room[at:len(room):len(room)]
			short := key[len(key)-8:]
			other := nft.Query{Set: f.pub, Key: key}
			if cl.wild() {
				other = nft.Query{Set: f.uses, Key: short}
			}
			ask, of = append(ask, nft.Query{Set: f.any, Key: short}, other), append(of, i, i)
		}
	}
	return ask, of
}

// conflicts finds what is in the way of the ports, by what rivals have found and
// among ranges, of which there are few: they are read.
func (n *NAT) conflicts(ctx context.Context, c nft.Conn, ports []Port, ask []nft.Query, of []int, found []*nft.Element) ([]conflict, error) {
	var all []conflict
	var spread []Port // that single addresses have; which, is yet to be searched for
	for i, e := range found {
		if e == nil {
			continue
		}
		p := ports[of[i]]
		if ask[i].Set == familyOf(p.Host.Addr()).uses {
			spread = append(spread, p)
			continue
		}
		it := item{ask[i].Set, *e}
		held, err := decodeItem(it)
		if err != nil {
			return nil, err
		}
		all = append(all, conflict{p, held, it})
	}
	for _, f := range families {
		for set, wanted := range map[string][]Port{f.pub: spread, f.rng: ports} {
			if !slices.ContainsFunc(wanted, func(p Port) bool { return familyOf(p.Host.Addr()) == f }) {
				continue
			}
			var err error
			if all, err = n.search(ctx, c, set, wanted, all); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// search reads a set of ports and adds those that overlap the ports wanted.
func (n *NAT) search(ctx context.Context, c nft.Conn, set string, wanted []Port, all []conflict) ([]conflict, error) {
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
		for _, p := range wanted {
			if p.claim().meets(held.claim()) {
				all = append(all, conflict{p, held, it})
				break
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
