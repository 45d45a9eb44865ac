package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

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
	lookups  []nft.Query   // of conflicting ports
	of       []int         // the index of the port that each of lookups is about
	replaced map[Port]bool // the ports in gone: one may be in the way of several
	hold     portlock.Hold // what Build has reserved
}

// Queries looks up conflicting ports, and the reference counts. The kernel checks for duplicates
// inside one map only.
//
// The cost does not depend on the number of published single ports, because each lookup finds one
// element. For a wildcard port, only the reference count is looked up. If it is not 0, resolve
// searches the single addresses.
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
	if err = tx.resolve(ctx, found[:n]); err == nil {
		tx.fault, err = tx.n.reserve(ctx, &tx.hold, tx.add, false)
	}
	if err != nil {
		return nil, err
	}
	return tx.batch(ctx, found[n:])
}

// resolve replaces published ports that conflict, as far as it may.
func (tx *publishTx) resolve(ctx context.Context, found []*nft.Element) error {
	var counted []Port // wildcard ports that are published on single addresses
	for i, e := range found {
		if e == nil {
			continue
		}
		p, set := tx.add[tx.of[i]], tx.lookups[i].Set
		if isRefSet(set) {
			counted = append(counted, p)
		} else if err := tx.replace(item{set, *e}, p); err != nil {
			return err
		}
	}
	for _, f := range families {
		if slices.ContainsFunc(counted, f.has) {
			if err := tx.replaceIn(ctx, f.pub, counted); err != nil {
				return err
			}
		}
		if slices.ContainsFunc(tx.add, f.has) {
			if err := tx.replaceIn(ctx, f.rng, tx.add); err != nil { // there are few ranges
				return err
			}
		}
	}
	return nil
}

// replaceIn does so in one set, which it reads.
func (tx *publishTx) replaceIn(ctx context.Context, set string, wanted []Port) error {
	items, err := tx.n.readItems(ctx, tx.c, set)
	if err != nil {
		return err
	}
	for _, it := range items {
		if err := tx.replace(it, wanted...); err != nil {
			return err
		}
	}
	return nil
}

// replace deletes a published port that overlaps a wanted one, if its owner is gone. Any other
// conflict is an error.
func (tx *publishTx) replace(it item, wanted ...Port) error {
	held, err := decodeItem(it)
	if err != nil {
		return err
	}
	for _, p := range wanted {
		if !p.claim().Overlaps(held.claim()) {
			continue
		}
		if tx.n.alive == nil || tx.n.alive(held.Owner) {
			tx.fault = p
			return errTaken{held}
		}
		if !tx.replaced[held] {
			if tx.replaced == nil {
				tx.replaced = make(map[Port]bool)
			}
			tx.replaced[held] = true
			tx.del, tx.gone = append(tx.del, it), append(tx.gone, held)
			tx.refs.add([]Port{held}, -1)
		}
		break
	}
	return nil
}

// Rollback gives back the reserved ports, and forgets what was to be replaced.
func (tx *publishTx) Rollback(ctx context.Context) error {
	tx.hold.Cancel()
	tx.refs.add(tx.gone, 1)
	tx.del, tx.gone, tx.replaced = nil, nil, nil
	return tx.portsTx.Rollback(ctx)
}

// finish flushes older flows. If long ranges cannot be reserved, it unpublishes the ports.
func (tx *publishTx) finish(ctx context.Context) error {
	n := tx.n
	if err := tx.reserved.grow(ctx); err != nil {
		return errors.Join(err, n.run(ctx, tx.c, &unpublishTx{portsTx{gone: tx.add}}))
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
