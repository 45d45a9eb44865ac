package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Check reports whether the named table in the namespace ns is whole: whether it has exactly the
// rules that Open installs, and all networks and ports of a state. It ignores other networks and
// ports, and changes nothing. The name "" is "boxwire".
//
// Errors: os.ErrNotExist for a missing table; [ErrDamaged] for a table whose rules another program
// changed, that lacks something of the state, that only a table beside it is left of, or that
// an older version of this library installed;
// os.ErrExist for a table that is not ours, or of a newer version; os.ErrInvalid for bad input. The
// error of a damaged table names what is wrong.
func Check(ctx context.Context, ns *netns.NS, name string, state State) error {
	const op = "nat.Check"
	table, err := tableName(name)
	n := &NAT{ns: ns, table: table}
	if err != nil {
		return n.fail(op, n.String(), err)
	}
	nets, subject, err := state.check()
	if err != nil {
		return n.fail(op, subject, err)
	}
	x, err := nsconn.Shared(ns, unix.NETLINK_NETFILTER)
	if err == nil {
		c := nft.New(x)
		err = c.Steady(ctx, func(ctx context.Context) error {
			err := n.checkRules(ctx, c)
			if err == nil {
				err = n.checkItems(ctx, c, nets, state)
			}
			if err == nil {
				err = n.checkGuards(ctx, c, state.guards)
			}
			if err == nil {
				err = n.checkQuiet(ctx, c, nets)
			}
			if err == nil {
				err = n.checkFlowtable(ctx, c, nets)
			}
			return err
		})
	}
	return n.fail(op, n.String(), err)
}

func (n *NAT) checkRules(ctx context.Context, c nft.Conn) error {
	comment, err := c.TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		return n.checkLeft(ctx, c, err)
	}
	if err != nil {
		return err
	}
	whole, err := checkVersion(comment)
	if err != nil {
		return err
	}
	if !whole {
		return fmt.Errorf("%w: an older version of this library has installed it (its comment is %q, not %q)", ErrDamaged, comment, skeletonComment)
	}
	if whole, err = n.holdsRules(ctx, c); err == nil && !whole {
		err = fmt.Errorf("%w: another program changed its rules", ErrDamaged)
	}
	return err
}

// checkLeft returns the error of a missing table, which is another one where a table that follows from it is
// left.
func (n *NAT) checkLeft(ctx context.Context, c nft.Conn, missing error) error {
	if p, err := n.readFlowtable(ctx, c); err != nil {
		return err
	} else if p.there {
		return fmt.Errorf("%w: only the table inet %s is left of it (Open removes that)", ErrDamaged, n.flowTable())
	}
	for _, table := range []string{n.table, n.quietTable()} {
		comment, err := c.In(unix.NFPROTO_BRIDGE).TableComment(ctx, table)
		if err == nil {
			if _, err := checkVersion(comment); err == nil {
				return fmt.Errorf("%w: only the table bridge %s is left of it (Open and Delete remove that)", ErrDamaged, table)
			}
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return missing
}

// holdsRules reports whether the rules of the table are the skeleton's.
func (n *NAT) holdsRules(ctx context.Context, c nft.Conn) (bool, error) {
	policies, err := c.HasSet(ctx, n.table, families[0].policy)
	if err != nil {
		return false, err
	}
	guards, err := c.HasSet(ctx, n.table, setArrived)
	if err != nil {
		return false, err
	}
	return c.Holds(ctx, skeleton(n.table, policies, guards))
}

func (n *NAT) checkItems(ctx context.Context, c nft.Conn, nets []Network, state State) error {
	var want []item
	var of []string // what each of want is of
	for _, net := range nets {
		items := net.items()
		cover, err := coverItems(items)
		if err != nil {
			return err
		}
		items = append(items, cover...)
		want, of = append(want, items...), append(of, slices.Repeat([]string{"network " + net.Interface}, len(items))...)
	}
	for _, p := range state.Ports {
		items := portItems([]Port{p})
		want, of = append(want, items...), append(of, slices.Repeat([]string{"port " + p.String()}, len(items))...)
	}
	policed := make(map[string]bool) // interfaces
	for _, p := range state.policies {
		for _, a := range p.Box {
			for _, net := range nets {
				if net.contains(a) {
					policed[net.Interface] = true
				}
			}
			items, err := p.policyItems(a)
			if err != nil {
				return err
			}
			want, of = append(want, items...), append(of, slices.Repeat([]string{p.subject()}, len(items))...)
		}
	}
	have, err := n.readSomeItems(ctx, c, append(setsOf(want), "policed")...)
	if err != nil {
		return err
	}
	for _, it := range have {
		if it.set == "policed" {
			delete(policed, it.network())
		}
	}
	for iface := range policed {
		return fmt.Errorf("%w: network %s has policies, and no element in the set policed", ErrDamaged, iface)
	}
	there := make(map[setKey]nft.Element, len(have))
	for _, it := range have {
		there[it.setKey()] = it.elem
	}
	for i, w := range want {
		if e, ok := there[w.setKey()]; !ok {
			return fmt.Errorf("%w: %s has no element in the set %s", ErrDamaged, of[i], w.set)
		} else if !e.Equal(&w.elem) {
			return fmt.Errorf("%w: %s has another element in the set %s", ErrDamaged, of[i], w.set)
		}
	}
	return nil
}
