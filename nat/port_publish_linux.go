package nat

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/portlock"
)

// Publish publishes the ports in one transaction: all of them or none. A TCP connection between a
// visitor and a program of the host that uses the host port goes on. The next packet of an existing
// flow of another protocol goes to the box.
//
// The box and its network need not exist yet. Packets from outside are forwarded only to addresses
// behind an interface of [NAT.AddNetwork], and to those that the host forwards to anyway.
//
// Errors: os.ErrExist if a host port is taken, with the owner or the program that has it;
// errors.ErrUnsupported for an IPv6 port on a kernel without IPv6; os.ErrInvalid for bad input. A
// port is also taken if the same owner has published it before. The documentation of [Port] says
// which ports conflict.
func (n *NAT) Publish(ctx context.Context, ports ...Port) error {
	const op = "nat.Publish"
	if p, err := checkPorts(ports); err != nil {
		return n.fail(op, p.String(), err)
	}
	if len(ports) == 0 {
		return nil
	}
	return n.transact(ctx, op, &publishTx{portsTx: portsTx{add: ports}})
}

// publishTx publishes ports. It replaces conflicting ports whose owners are gone.
type publishTx struct {
	portsTx
	lookups []nft.Query   // of conflicting ports
	of      []int         // the index of the port that each of lookups is about
	hold    portlock.Hold // what Build has reserved
}

// Queries looks up conflicting ports, and the reference counts. The kernel checks for duplicates
// inside one map only.
//
// The cost does not depend on the number of published single ports, because each lookup finds one
// element. For a wildcard port, only the reference count is looked up. If it is not 0, conflicts
// searches the single addresses to name them.
func (tx *publishTx) Queries() []nft.Query {
	room := make([]byte, 0, 24*len(tx.add))
	tx.lookups, tx.of = make([]nft.Query, 0, 3*len(tx.add)), make([]int, 0, 2*len(tx.add)) // with room for the counts
	for i, p := range tx.add {
		f, addr := familyOf(p.Host.Addr()), p.Host.Addr()
		for port := int(p.Host.Port()); port <= int(p.last()); port++ {
			at := len(room)
			room = appendKey(room, addr, p.Proto, uint16(port))
			key := tail(room, at)
			short := key[len(key)-8:]
			other := nft.Query{Set: f.pub, Key: key}
			if addr.IsUnspecified() {
				other = nft.Query{Set: f.refs, Key: short}
			}
			tx.lookups, tx.of = append(tx.lookups, nft.Query{Set: f.any, Key: short}, other), append(tx.of, i, i)
		}
	}
	tx.refs.add(tx.add, 1)
	return tx.refs.queries(tx.lookups)
}

// Build reserves the ports, and returns the batch that publishes them.
func (tx *publishTx) Build(ctx context.Context, found []*nft.Element) (b *nft.Batch, err error) {
	n := len(tx.lookups)
	held, err := tx.conflicts(ctx, found[:n])
	if err == nil {
		err = tx.replace(held)
	}
	if err == nil {
		tx.fault, err = tx.n.reserve(ctx, &tx.hold, tx.add, false)
	}
	if err != nil {
		return nil, err
	}
	return tx.batch(ctx, found[n:])
}

// A conflict is a wanted port and a published one that take the same host port.
type conflict struct {
	want, held Port
	item       item // of the one held
}

// conflicts returns the conflicts of the ports: those that Queries found, and those with ranges. It
// reads all ranges, because there are few.
func (tx *publishTx) conflicts(ctx context.Context, found []*nft.Element) (all []conflict, err error) {
	var spread []Port // wildcard ports that single addresses conflict with
	for i, e := range found {
		if e == nil {
			continue
		}
		p, set := tx.add[tx.of[i]], tx.lookups[i].Set
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
		if all, err = tx.search(ctx, f, f.pub, spread, all); err == nil {
			all, err = tx.search(ctx, f, f.rng, tx.add, all)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// search reads a set of ports of a family, and adds those that overlap the wanted ports.
func (tx *publishTx) search(ctx context.Context, f *family46, set string, wanted []Port, all []conflict) ([]conflict, error) {
	if !hasFamily(wanted, f) {
		return all, nil
	}
	items, err := tx.n.readItems(ctx, tx.c, set)
	if err != nil {
		return nil, err
	}
	for _, it := range items {
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

func hasFamily(ports []Port, f *family46) bool {
	for i := range ports {
		if familyOf(ports[i].Host.Addr()) == f {
			return true
		}
	}
	return false
}

// replace deletes the conflicting ports whose owners are gone. Any other conflict is an error.
func (tx *publishTx) replace(held []conflict) error {
	var gone []Port
	var del []item
	seen := make(map[Port]bool) // one may be in the way of several
	for _, x := range held {
		if tx.n.alive == nil || tx.n.alive(x.held.Owner) {
			tx.fault = x.want
			return errTaken{x.held}
		}
		if !seen[x.held] {
			gone, del = append(gone, x.held), append(del, x.item)
		}
		seen[x.held] = true
	}
	tx.gone, tx.del = gone, del
	tx.refs.add(gone, -1)
	return nil
}

// Committed reports whether the ports are published.
func (tx *publishTx) Committed(ctx context.Context) (bool, error) {
	return tx.holds(ctx, portItems(tx.add), true)
}

// Rollback gives back the reserved ports, and forgets what was to be replaced.
func (tx *publishTx) Rollback(ctx context.Context) error {
	tx.hold.Cancel()
	tx.refs.add(tx.gone, 1)
	tx.gone, tx.del = nil, nil
	return tx.portsTx.Rollback(ctx)
}

// finish flushes older flows. If long ranges cannot be reserved, it unpublishes the ports.
func (tx *publishTx) finish(ctx context.Context) error {
	n := tx.n
	if err := tx.reserved.grow(ctx); err != nil {
		return errors.Join(err, n.run(ctx, tx.c, newUnpublish(tx.add)))
	}
	n.release(tx.gone, tx.add)
	tx.hold.Rebind(ctx)
	return n.flush(ctx, tx.gone, tx.add)
}

// errTaken reports a host port that is published already.
type errTaken struct{ held Port }

func (e errTaken) Error() string {
	return fmt.Sprintf("the host port is taken: %v is published by %q", e.held, e.held.Owner)
}

func (e errTaken) Is(target error) bool { return target == os.ErrExist }
