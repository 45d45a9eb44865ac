package nat

import (
	"context"
	"fmt"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Check looks whether the table of that name, by default "boxwire", in the
// namespace ns has the rules that [Open] installs and no others, and the networks
// and ports of a state. What else it holds does not matter. Check changes nothing.
//
// Errors: os.ErrNotExist for a table that is missing; [ErrDamaged] for one whose
// rules somebody has changed, that lacks something of the state, which the error
// names, or that an older version of this library has installed; os.ErrExist for
// one that is not ours, or of a newer version; os.ErrInvalid for bad input.
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
	x, err := ns.Exchange(unix.NETLINK_NETFILTER)
	if err == nil {
		c := nft.New(x)
		err = c.Steady(ctx, func(ctx context.Context) error {
			err := n.checkRules(ctx, c)
			if err == nil {
				err = n.checkItems(ctx, c, nets, state.Ports)
			}
			return err
		})
	}
	return n.fail(op, n.String(), err)
}

func (n *NAT) checkRules(ctx context.Context, c nft.Conn) error {
	comment, err := c.TableComment(ctx, n.table)
	if err != nil {
		return err
	}
	whole, err := judge(comment)
	if err != nil {
		return err
	}
	if !whole {
		return fmt.Errorf("%w: an older version of this library has installed it (its comment is %q, not %q)", ErrDamaged, comment, skeletonComment)
	}
	if whole, err = c.Holds(ctx, skeleton(n.table)); err == nil && !whole {
		err = fmt.Errorf("%w: somebody has changed its rules", ErrDamaged)
	}
	return err
}

func (n *NAT) checkItems(ctx context.Context, c nft.Conn, nets []Network, ports []Port) error {
	type part struct {
		item
		of string
	}
	var want []part
	sets := make(map[string]bool)
	add := func(of string, items []item) {
		for _, it := range items {
			want = append(want, part{it, of})
			sets[it.set] = true
		}
	}
	for _, net := range nets {
		add("network "+net.Interface, net.items())
	}
	for _, p := range ports {
		add("port "+p.String(), portItems([]Port{p}))
	}
	have, err := n.readItems(ctx, c, func(set string) bool { return sets[set] })
	if err != nil {
		return err
	}
	there := make(map[place]nft.Element, len(have))
	for _, it := range have {
		there[it.place()] = it.elem
	}
	for _, w := range want {
		if e, ok := there[w.place()]; !ok {
			return fmt.Errorf("%w: %s has no element in the set %s", ErrDamaged, w.of, w.set)
		} else if !e.Equal(&w.elem) {
			return fmt.Errorf("%w: %s has another element in the set %s", ErrDamaged, w.of, w.set)
		}
	}
	return nil
}
