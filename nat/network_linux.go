package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// settleTimeout bounds what follows a commit: it is done even if the caller's
// context ends, because the whole is done or undone.
const settleTimeout = 10 * time.Second

// AddNetwork adds a network in one transaction: its boxes reach each other, the
// host and the outside as the options say, and are reached through published
// ports only. Then it makes the host forward for the network; the package
// documentation says what that changes and how it is undone. Where a setting
// cannot be written, the network is removed again.
//
// Errors: os.ErrExist if the interface has a network already, or a subnet
// overlaps that of another network, which is named; os.ErrInvalid for bad input;
// errors.ErrUnsupported for an IPv6 subnet on a kernel without IPv6.
func (n *NAT) AddNetwork(ctx context.Context, net Network) error {
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error { return n.putNetwork(ctx, c, net, false) })
	return n.fail("nat.AddNetwork", "network "+net.Interface, err)
}

// EnsureNetwork makes a network what net says, whether it is there or not, in one
// transaction: AddNetwork that may be repeated. Openings that net does not have are
// closed. A link that came after its network is made to forward now, as are links
// to the outside that came since.
//
// Errors are those of AddNetwork, but for a network that is there already.
func (n *NAT) EnsureNetwork(ctx context.Context, net Network) error {
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error { return n.putNetwork(ctx, c, net, true) })
	return n.fail("nat.EnsureNetwork", "network "+net.Interface, err)
}

// putNetwork adds a network; there already, it is replaced if replace says so.
func (n *NAT) putNetwork(ctx context.Context, c nft.Conn, net Network, replace bool) error {
	net, err := net.checked()
	if err != nil {
		return err
	}
	var plan *plan
	var had []item
	err = c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		var err error
		if plan, err = n.plan(ctx, c, net); err != nil {
			return nil, err
		}
		if had, err = n.held(ctx, c, net.Interface); err != nil {
			return nil, err
		}
		if had != nil && !replace {
			return nil, fmt.Errorf("the interface has a network already: %w", os.ErrExist)
		}
		if err := n.overlaps(ctx, c, net); err != nil {
			return nil, err
		}
		b := nft.NewBatch(n.table)
		changeItems(b, had, net.items())
		plan.record(b)
		return b, nil
	}, func(ctx context.Context) (bool, error) {
		have, err := n.held(ctx, c, net.Interface)
		b := nft.NewBatch(n.table)
		changeItems(b, have, net.items())
		return b.Len() == 0, err
	})
	if err != nil {
		return n.explain(ctx, c, err)
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	err = plan.apply(ctx, n.ns)
	if err == nil && had == nil && plan.forwarded {
		// The network may have been there before, until somebody removed the table.
		items, err := n.readItems(ctx, c, func(string) bool { return true })
		if err == nil {
			err = n.flushStrays(ctx, items)
		}
		return n.explain(ctx, c, err)
	}
	switch {
	case err != nil && had == nil:
		err = errors.Join(err, n.removeNetwork(ctx, c, net.Interface))
	case err != nil:
		err = errors.Join(err, c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
			have, err := n.held(ctx, c, net.Interface)
			b := nft.NewBatch(n.table)
			changeItems(b, have, had)
			return b, err
		}, nil))
	}
	return err
}

// overlaps returns an error if a subnet of the network overlaps that of another.
func (n *NAT) overlaps(ctx context.Context, c nft.Conn, net Network) error {
	for _, f := range families {
		if !net.has(f.v6) {
			continue
		}
		elems, err := c.Elements(ctx, n.table, f.same)
		if err != nil {
			return err
		}
		for _, e := range elems {
			if err := overlapsElement(net, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// overlapsElement returns an error if a subnet of the network overlaps that of
// another, which an element of same4 or same6 is of.
func overlapsElement(net Network, e nft.Element) error {
	other, name, err := decodeSame(e)
	if err != nil {
		return err
	}
	for _, s := range net.Subnets {
		if name != net.Interface && other.Overlaps(s) {
			return fmt.Errorf("the subnet %v overlaps %v of the network %s: %w", s, other, name, os.ErrExist)
		}
	}
	return nil
}

// RemoveNetwork removes the network of an interface, which need not exist any
// more, with its openings and the ways from and to linked networks. After the last
// one, the links are set back to what they were before they forwarded. Ports
// published to boxes of the network stay: they are for [NAT.Unpublish].
//
// An interface without a network is os.ErrNotExist.
func (n *NAT) RemoveNetwork(ctx context.Context, iface string) error {
	err := checkInterface(iface)
	if err == nil {
		err = n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error { return n.removeNetwork(ctx, c, iface) })
	}
	return n.fail("nat.RemoveNetwork", "network "+iface, err)
}

func (n *NAT) removeNetwork(ctx context.Context, c nft.Conn, iface string) error {
	key := ifname(iface)
	err := c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		had, err := n.held(ctx, c, iface)
		if err != nil {
			return nil, err
		}
		if had == nil {
			if err := n.gone(ctx, c); err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("the interface has no network: %w", os.ErrNotExist)
		}
		b := nft.NewBatch(n.table)
		changeItems(b, had, nil)
		pairs, err := c.Elements(ctx, n.table, "pair")
		if err != nil {
			return nil, err
		}
		for _, e := range pairs {
			if from, to := pairOf(e.Key); to == iface && from != iface {
				b.DeleteElements("pair", nft.Element{Key: e.Key})
			}
		}
		if err := n.revoke(ctx, c, b, func(name string) bool { return name == iface }); err != nil {
			return nil, err
		}
		// The setting before its record, which says what to set back.
		found, err := c.Lookup(ctx, n.table, nft.Query{Set: "localnet", Key: key})
		if err == nil && found[0] != nil {
			b.DeleteElements("localnet", nft.Element{Key: key})
			err = clearLocalnet(ctx, n.ns, iface)
		}
		return b, err
	}, func(ctx context.Context) (bool, error) {
		found, err := c.Lookup(ctx, n.table, nft.Query{Set: "ifs", Key: key})
		return err == nil && found[0] == nil, err
	})
	if err != nil {
		return n.explain(ctx, c, err)
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	return n.restoreIfLast(ctx, c)
}

// restoreIfLast sets the links back if there is no network left. Should another
// program add one meanwhile, forwarding is switched on again.
func (n *NAT) restoreIfLast(ctx context.Context, c nft.Conn) error {
	restored := false
	err := c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		f, err := n.readFlipped(ctx, c)
		if err != nil {
			return nil, err
		}
		if f.networks > 0 {
			if restored {
				return nil, f.reapply(ctx, n.ns)
			}
			return nil, nil
		}
		restored = true
		if err := f.restore(ctx, n.ns); err != nil {
			return nil, err
		}
		b := nft.NewBatch(n.table)
		b.DeleteElements(families[0].flipped, f.four...)
		b.DeleteElements(families[1].flipped, f.six...)
		b.DeleteElements("bridged", f.bridged...)
		return b, nil
	}, nil)
	return netns.IgnoreNotExist(err)
}
