package nat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Publish publishes the ports in one transaction: all of them or none. It does
// not keep the host port from being bound by a program of the host; TCP
// connections that such a program already has stay with it. Flows of other
// protocols go to the box from their next packet on, also those that began before.
//
// A host port that is taken is os.ErrExist, and the error names its holder. It is
// taken by a port of the same protocol, family and number on the same address;
// a port on all addresses and one on a single address take each other's, too.
// That holds as well for the very same port of the same owner.
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
	c, err := n.conn()
	if err != nil {
		return n.fail(op, portsSubject(ports), err)
	}
	culprit := portsSubject(ports)
	err = c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		if p, err := n.collisions(ctx, c, ports); err != nil {
			culprit = p.String()
			return nil, err
		}
		b := nft.NewBatch(n.table)
		addItems(b, portItems(ports))
		return b, nil
	}, func(ctx context.Context) (bool, error) { return n.have(ctx, c, ports, true) })
	if errors.Is(err, unix.EEXIST) {
		if p, taken := n.holder(ctx, c, ports); taken != nil {
			culprit, err = p.String(), taken
		}
	}
	if err == nil {
		err = n.flush(ctx, targets(ports, begun))
	}
	return n.fail(op, culprit, n.explain(ctx, c, err))
}

// Unpublish removes the ports in one transaction: all of them or none.
// Connections through them end: the translation of what is under way is taken
// from it, so that it reaches the box no more.
//
// A port that is not published, or leads to another box, is os.ErrNotExist; one
// of another owner is os.ErrPermission.
func (n *NAT) Unpublish(ctx context.Context, ports ...Port) error {
	const op = "nat.Unpublish"
	if p, err := checkPorts(ports); err != nil {
		return n.fail(op, p.String(), err)
	}
	if len(ports) == 0 {
		return nil
	}
	c, err := n.conn()
	if err != nil {
		return n.fail(op, portsSubject(ports), err)
	}
	culprit := portsSubject(ports)
	err = c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		// A delete in nftables ignores what the element holds, so that it is read
		// first; the generation makes that one step.
		found, err := c.Lookup(ctx, n.table, queries(ports)...)
		if err != nil {
			return nil, err
		}
		for i, p := range ports {
			if err := n.checkHeld(ctx, c, p, found[i]); err != nil {
				culprit = p.String()
				return nil, err
			}
		}
		b := nft.NewBatch(n.table)
		deleteItems(b, portItems(ports))
		return b, nil
	}, func(ctx context.Context) (bool, error) { return n.have(ctx, c, ports, false) })
	if err == nil {
		err = n.flush(ctx, targets(ports, ended))
	}
	return n.fail(op, culprit, n.explain(ctx, c, err))
}

// checkHeld checks that an element is that of the port.
func (n *NAT) checkHeld(ctx context.Context, c nft.Conn, p Port, e *nft.Element) error {
	if e == nil {
		if err := n.gone(ctx, c); err != nil {
			return err
		}
		return fmt.Errorf("the port is not published: %w", os.ErrNotExist)
	}
	box, err := decodeData(e.Data)
	switch {
	case err != nil:
		return err
	case e.Comment != p.Owner:
		return fmt.Errorf("the port belongs to %q, not to %q: %w", e.Comment, p.Owner, os.ErrPermission)
	case box != p.Box:
		return fmt.Errorf("the host port leads to %v: %w", box, os.ErrNotExist)
	}
	return nil
}

// List returns what is published, sorted by protocol, host address and port.
// Elements that another program added are listed with whatever comment they
// have for an owner.
func (n *NAT) List(ctx context.Context) ([]Published, error) {
	c, err := n.conn()
	if err != nil {
		return nil, n.fail("nat.List", n.String(), err)
	}
	all, err := n.list(ctx, c)
	if err != nil {
		return nil, n.fail("nat.List", n.String(), n.explain(ctx, c, err))
	}
	slices.SortFunc(all, func(a, b Published) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Host.Compare(b.Host))
	})
	return all, nil
}

// list reads the four maps in one state of the ruleset.
func (n *NAT) list(ctx context.Context, c nft.Conn) (all []Published, err error) {
	err = c.Steady(ctx, func(ctx context.Context) error {
		all = nil
		for _, f := range families {
			for _, set := range []string{f.pub, f.any} {
				if all, err = n.listSet(ctx, c, f, set, all); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return all, err
}

func (n *NAT) listSet(ctx context.Context, c nft.Conn, f *family46, set string, all []Published) ([]Published, error) {
	elems, err := c.Elements(ctx, n.table, set)
	if err != nil {
		return nil, err
	}
	all = slices.Grow(all, len(elems))
	for _, e := range elems {
		p, err := decodePort(f, e)
		if err != nil {
			return nil, fmt.Errorf("map %s: %w", set, err)
		}
		all = append(all, Published{Port: p, Connections: e.Packets})
	}
	return all, nil
}

// collisions looks for ports on all addresses where one on a single address is
// wanted, and the other way round: the kernel checks inside one map only.
func (n *NAT) collisions(ctx context.Context, c nft.Conn, ports []Port) (Port, error) {
	var ask []nft.Query
	var asked []Port
	wild := map[*family46]map[hostKey]Port{}
	for _, p := range ports {
		f := familyOf(p.Host.Addr())
		if p.key().isWild() {
			if wild[f] == nil {
				wild[f] = map[hostKey]Port{}
			}
			wild[f][p.key()] = p
			continue
		}
		ask = append(ask, nft.Query{Set: f.any, Key: encodeKey(p.key().wild())})
		asked = append(asked, p)
	}
	found, err := c.Lookup(ctx, n.table, ask...)
	if err != nil {
		return Port{}, err
	}
	for i, e := range found {
		if e != nil {
			return asked[i], taken(asked[i].key().wild(), e)
		}
	}
	for f, want := range wild {
		elems, err := n.listSet(ctx, c, f, f.pub, nil)
		if err != nil {
			return Port{}, n.explain(ctx, c, err)
		}
		for _, held := range elems {
			if p, ok := want[held.key().wild()]; ok {
				return p, errTaken{held.Port}
			}
		}
	}
	return Port{}, nil
}

// holder finds out which of the ports is taken, after an EEXIST.
func (n *NAT) holder(ctx context.Context, c nft.Conn, ports []Port) (Port, error) {
	found, err := c.Lookup(ctx, n.table, queries(ports)...)
	if err != nil {
		return Port{}, nil
	}
	for i, e := range found {
		if e != nil {
			return ports[i], taken(ports[i].key(), e)
		}
	}
	return Port{}, nil // the holder has gone since
}

// errTaken is a host port that is published already.
type errTaken struct{ held Port }

func (e errTaken) Error() string {
	return fmt.Sprintf("the host port is taken: %v is published by %q", e.held, e.held.Owner)
}

func (e errTaken) Is(target error) bool { return target == os.ErrExist }

func taken(k hostKey, e *nft.Element) error {
	held := Port{Proto: k.proto, Host: k.host, Owner: e.Comment}
	held.Box, _ = decodeData(e.Data)
	return errTaken{held}
}

// have reports whether every port is there as given (want), or none is (!want).
func (n *NAT) have(ctx context.Context, c nft.Conn, ports []Port, want bool) (bool, error) {
	found, err := c.Lookup(ctx, n.table, queries(ports)...)
	if err != nil {
		return false, netns.IgnoreNotExist(err)
	}
	for i, e := range found {
		there := e != nil && e.Comment == ports[i].Owner
		if there {
			box, err := decodeData(e.Data)
			there = err == nil && box == ports[i].Box
		}
		if there != want {
			return false, nil
		}
	}
	return true, nil
}
