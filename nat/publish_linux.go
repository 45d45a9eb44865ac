package nat

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// Publish publishes the ports in one transaction: all of them or none. TCP
// connections that a program of the host already has on the host port stay with
// it. Flows of other protocols go to the box from their next packet on, also those
// that began before.
//
// A host port that is taken is os.ErrExist, and the error names its holder. It is
// taken by a port of the same protocol, family and number on the same address;
// a port on all addresses and one on a single address take each other's, too.
// That holds as well for the very same port of the same owner. A holder that
// [Options.Alive] says is gone is replaced in the same transaction.
//
// The box need not be there yet, nor its network; but what comes from outside is
// let through to addresses behind an interface of [NAT.AddNetwork] and to those
// that the host forwards to anyway.
func (n *NAT) Publish(ctx context.Context, ports ...Port) error {
	const op = "nat.Publish"
	if p, err := checkPorts(ports); err != nil {
		return n.fail(op, p.String(), err)
	}
	if len(ports) == 0 {
		return nil
	}
	var culprit Port
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) (err error) {
		culprit, err = n.publish(ctx, c, ports)
		return n.explain(ctx, c, err)
	})
	return n.failPorts(op, ports, culprit, err)
}

// failPorts is fail for a call about ports, of which one may be at fault.
func (n *NAT) failPorts(op string, ports []Port, culprit Port, err error) error {
	switch {
	case err == nil:
		return nil
	case culprit != (Port{}):
		return n.fail(op, culprit.String(), err)
	}
	return n.fail(op, portsSubject(ports), err)
}

// publish publishes the ports, or returns the one that is at fault.
func (n *NAT) publish(ctx context.Context, c nft.Conn, ports []Port) (culprit Port, err error) {
	undo := func() {}
	var dead []item
	var l *relisting
	ask, of := rivals(ports)
	var uses useChange
	uses.addPorts(ports)
	err = n.commit(ctx, c, uses.queries(ask), func(ctx context.Context, found []*nft.Element) (b *nft.Batch, err error) {
		undo() // of a build before
		undo = func() {}
		held, err := n.conflicts(ctx, c, ports, ask, of, found[:len(ask)])
		if err == nil {
			dead, culprit, err = n.settle(held)
		}
		if err == nil {
			undo, culprit, err = n.reserve(ctx, ports, false)
		}
		if err == nil {
			uses.found(found[len(ask):])
			b, l, err = n.change(ctx, c, dead, ports, uses.with(dead, -1))
		}
		return b, err
	}, func(ctx context.Context) (bool, error) { return n.have(ctx, c, ports, true) })
	if err != nil {
		undo()
		return culprit, errors.Join(err, l.revert(ctx))
	}
	if err := l.after(ctx); err != nil {
		return culprit, errors.Join(err, n.unpublish(context.WithoutCancel(ctx), c, ports, &culprit))
	}
	n.published += elements(ports) - len(dead)
	n.release(dead, ports...)
	n.rebind(ctx)
	if dead == nil {
		return culprit, n.flush(ctx, targets(ports, begun))
	}
	gone, err := decodeItems(dead)
	if err == nil {
		err = n.flush(ctx, append(targets(gone, ended), targets(ports, begun)...))
	}
	return culprit, err
}

// Unpublish removes the ports in one transaction: all of them or none.
// Connections through them end: the translation of what is under way is taken
// from it, so that it reaches the box no more.
//
// A port that is not published, or leads to another box, is os.ErrNotExist; one
// of another owner is os.ErrPermission. A range is removed as it was published.
func (n *NAT) Unpublish(ctx context.Context, ports ...Port) error {
	const op = "nat.Unpublish"
	if p, err := checkPorts(ports); err != nil {
		return n.fail(op, p.String(), err)
	}
	if len(ports) == 0 {
		return nil
	}
	var culprit Port
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error {
		return n.explain(ctx, c, n.unpublish(ctx, c, ports, &culprit))
	})
	return n.failPorts(op, ports, culprit, err)
}

// unpublish removes the ports; an error that is one port's names it.
func (n *NAT) unpublish(ctx context.Context, c nft.Conn, ports []Port, culprit *Port) error {
	items := portItems(ports)
	var l *relisting
	var uses useChange
	uses.add(items, -1)
	// A delete in nftables ignores what the element holds, so that it is read first;
	// the generation makes that one step.
	ask := uses.queries(queries(items))
	err := n.commit(ctx, c, ask, func(ctx context.Context, found []*nft.Element) (b *nft.Batch, err error) {
		p, err := n.checkHeld(ctx, c, ports, items, found)
		if err != nil {
			*culprit = p
			return nil, err
		}
		uses.found(found[len(items):])
		b, l, err = n.change(ctx, c, items, nil, uses)
		return b, err
	}, func(ctx context.Context) (bool, error) { return n.have(ctx, c, ports, false) })
	if err != nil {
		return errors.Join(err, l.revert(ctx))
	}
	n.published -= len(items)
	err = n.flush(ctx, targets(ports, ended))
	n.release(items)
	return err
}

// UnpublishOwner removes all ports of an owner in one transaction. It reads all
// that is published; [NAT.Unpublish] does not. An owner without ports is
// os.ErrNotExist.
func (n *NAT) UnpublishOwner(ctx context.Context, owner string) error {
	const op = "nat.UnpublishOwner"
	subject := fmt.Sprintf("owner %q", owner)
	if err := checkOwner(owner); err != nil {
		return n.fail(op, subject, err)
	}
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error {
		return n.explain(ctx, c, n.unpublishOwner(ctx, c, owner))
	})
	return n.fail(op, subject, err)
}

func (n *NAT) unpublishOwner(ctx context.Context, c nft.Conn, owner string) error {
	var items []item
	var ports []Port
	find := func(ctx context.Context) error {
		items, ports = nil, nil
		return n.eachPort(ctx, c, func(it item) error {
			if it.elem.Comment != owner {
				return nil
			}
			p, err := decodeItem(it)
			items, ports = append(items, it), append(ports, p)
			return err
		})
	}
	var l *relisting
	err := c.Commit(ctx, func(ctx context.Context) (b *nft.Batch, err error) {
		var uses useChange
		err = find(ctx)
		if err == nil && len(items) == 0 {
			err = fmt.Errorf("the owner has no port published: %w", os.ErrNotExist)
		}
		if err != nil {
			return nil, err
		}
		uses.add(items, -1)
		b, l, err = n.change(ctx, c, items, nil, uses)
		return b, err
	}, func(ctx context.Context) (bool, error) {
		return n.have(ctx, c, ports, false)
	})
	if err != nil {
		return errors.Join(err, l.revert(ctx))
	}
	n.published -= len(items)
	err = n.flush(ctx, targets(ports, ended))
	n.release(items)
	return err
}

// commit commits what build makes of what the queries find.
func (n *NAT) commit(ctx context.Context, c nft.Conn, ask []nft.Query, build func(context.Context, []*nft.Element) (*nft.Batch, error), landed func(context.Context) (bool, error)) error {
	if len(ask) < minSelect || n.published > perQuery*len(ask) {
		return c.CommitFound(ctx, n.table, ask, build, landed)
	}
	return c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		found, read, err := c.Select(ctx, n.table, ask...)
		if err != nil {
			return nil, err
		}
		n.published = read
		return build(ctx, found)
	}, landed)
}

// From so many queries on, the sets are read whole instead, if they hold about so
// many elements a query at most: a query costs 3 us, and an element that is read
// 0.4, and more where there are very many. If it is not known how many there are,
// it is after the first time.
const (
	minSelect = 32
	perQuery  = 4
)

// change returns the batch that deletes elements of published ports and adds ports, and
// keeps in step what follows from them: uses, of which some may have been read
// already, and the ports that are listed.
func (n *NAT) change(ctx context.Context, c nft.Conn, del []item, add []Port, uses useChange) (*nft.Batch, *relisting, error) {
	l, recorded, err := n.relist(ctx, c, del, add)
	if err != nil {
		return nil, nil, err
	}
	if err := uses.look(ctx, c, n.table); err != nil {
		return nil, nil, err
	}
	b := nft.NewBatch(n.table)
	deleteItems(b, del)
	addPorts(b, add)
	uses.write(b)
	if l != nil {
		changeItems(b, recorded, l.record)
	}
	return b, l, l.before(ctx)
}

// checkHeld checks that what is published are the ports, by what was found of
// their items, and returns the first that is not.
func (n *NAT) checkHeld(ctx context.Context, c nft.Conn, ports []Port, want []item, found []*nft.Element) (Port, error) {
	at := 0
	for _, p := range ports {
		for range p.singles() {
			if err := isHeld(want[at], found[at]); err != nil {
				if gone := n.gone(ctx, c); gone != nil {
					return Port{}, gone
				}
				return p, err
			}
			at++
		}
	}
	return Port{}, nil
}

// isHeld checks that the element found is the one wanted.
func isHeld(want item, e *nft.Element) error {
	if e == nil || string(e.Key) != string(want.elem.Key) || string(e.KeyEnd) != string(want.elem.KeyEnd) {
		return fmt.Errorf("the port is not published: %w", os.ErrNotExist)
	}
	held, err := decodeItem(item{want.set, *e})
	switch {
	case err != nil:
		return err
	case e.Comment != want.elem.Comment:
		return fmt.Errorf("the port belongs to %q, not to %q: %w", e.Comment, want.elem.Comment, os.ErrPermission)
	case string(e.Data) != string(want.elem.Data):
		return fmt.Errorf("the host port leads to %v: %w", held.Box, os.ErrNotExist)
	}
	return nil
}

// queries ask for the elements that have the items' keys. Of a range it is the
// element that holds its first port.
func queries(items []item) []nft.Query {
	q := make([]nft.Query, len(items))
	for i, it := range items {
		q[i] = nft.Query{Set: it.set, Key: it.elem.Key}
	}
	return q
}

// have reports whether every port is there as given (want), or none is (!want).
func (n *NAT) have(ctx context.Context, c nft.Conn, ports []Port, want bool) (bool, error) {
	items := portItems(ports)
	found, err := c.Lookup(ctx, n.table, queries(items)...)
	if err != nil {
		return false, netns.IgnoreNotExist(err)
	}
	for i, e := range found {
		if there := e != nil && e.Equal(&items[i].elem); there != want {
			return false, nil
		}
	}
	return true, nil
}
