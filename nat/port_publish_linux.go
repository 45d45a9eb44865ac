package nat

import (
	"context"
	"errors"

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
	return n.transact(ctx, op, newPublish(ports))
}

// publishTx publishes ports. It replaces conflicting ports whose owners are gone.
type publishTx struct {
	portsTx
	conflictQueries []nft.Query
	of              []int         // the index of the port that each of conflictQueries is about
	own             refChange     // the counts of the ports alone
	hold            portlock.Hold // what Build has reserved
}

func newPublish(ports []Port) *publishTx {
	tx := new(publishTx)
	tx.add = ports
	return tx
}

// Queries looks up conflicting ports, and the reference counts.
func (tx *publishTx) Queries() []nft.Query {
	tx.conflictQueries, tx.of = conflictQueries(tx.add)
	tx.own.add(tx.add, 1)
	return tx.own.queries(tx.conflictQueries)
}

// Build reserves the ports, and returns the batch that publishes them.
func (tx *publishTx) Build(ctx context.Context, found []*nft.Element) (b *nft.Batch, err error) {
	n := len(tx.conflictQueries)
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

// replace deletes the conflicting ports whose owners are gone. Any other conflict is an error.
func (tx *publishTx) replace(held []conflict) (err error) {
	tx.fault, tx.del, tx.gone, tx.refs = Port{}, nil, nil, tx.own
	seen := make(map[Port]bool) // one may be in the way of several
	for _, x := range held {
		if tx.n.alive == nil || tx.n.alive(x.held.Owner) {
			tx.fault = x.want
			return errTaken{x.held}
		}
		if !seen[x.held] {
			tx.del, tx.gone = append(tx.del, x.item), append(tx.gone, x.held)
		}
		seen[x.held] = true
	}
	if len(tx.gone) > 0 {
		tx.refs = refChange{} // which begins with the counts that were asked for
		tx.refs.add(tx.add, 1)
		tx.refs.add(tx.gone, -1)
	}
	return nil
}

// Committed reports whether the ports are published.
func (tx *publishTx) Committed(ctx context.Context) (bool, error) {
	return tx.n.have(ctx, tx.c, tx.add, true)
}

// Rollback gives back the reserved ports.
func (tx *publishTx) Rollback(ctx context.Context) error {
	tx.hold.Cancel()
	return tx.portsTx.Rollback(ctx)
}

// finish flushes older flows. If long ranges cannot be reserved, it unpublishes the ports.
func (tx *publishTx) finish(ctx context.Context) error {
	n := tx.n
	if err := tx.reserved.grow(ctx); err != nil {
		return errors.Join(err, n.run(ctx, tx.c, newUnpublish(tx.add)))
	}
	n.release(tx.del, tx.add...)
	tx.hold.Rebind(ctx)
	return n.flush(ctx, append(targets(tx.gone, unmappedTarget), targets(tx.add, mappedTarget)...))
}
