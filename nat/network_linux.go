package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
)

// settleTimeout bounds what follows a commit: it is done even if the caller's
// context ends, because the whole is done or undone.
const settleTimeout = 10 * time.Second

// noteLocalnet is the comment of an interface in ifs whose route_localnet we
// have switched on.
const noteLocalnet = "route_localnet"

// AddNetwork adds a network in one transaction: its boxes reach each other, the
// host and the outside, and are reached through published ports only. Then it
// makes the host forward for the network; the package documentation says what
// that changes and how it is undone. Where a setting cannot be written, the
// network is removed again.
//
// Errors: os.ErrNotExist if the interface does not exist, os.ErrExist if it has
// a network already, os.ErrInvalid for a bad name or subnet; errors.ErrUnsupported
// for an IPv6 subnet on a kernel without IPv6.
func (n *NAT) AddNetwork(ctx context.Context, net Network) error {
	return n.fail("nat.AddNetwork", "network "+net.Interface, n.addNetwork(ctx, net))
}

func (n *NAT) addNetwork(ctx context.Context, net Network) error {
	subnets, err := net.masked()
	if err != nil {
		return err
	}
	c, err := n.conn()
	if err != nil {
		return err
	}
	key := ifname(net.Interface)
	var plan *plan
	err = c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		var err error
		if plan, err = n.plan(ctx, c, net.Interface, subnets); err != nil {
			return nil, err
		}
		b := nft.NewBatch(n.table)
		addItems(b, net.items(subnets, plan.localnet))
		b.EnsureElements(families[0].flipped, plan.record4()...)
		b.EnsureElements(families[1].flipped, plan.six.record...)
		return b, nil
	}, func(ctx context.Context) (bool, error) {
		found, err := c.Lookup(ctx, n.table, nft.Query{Set: "ifs", Key: key})
		return err == nil && found[0] != nil, err
	})
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("the interface has a network already: %w", err)
	}
	if err != nil {
		return n.explain(ctx, c, err)
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := plan.apply(ctx, n.ns); err != nil {
		return errors.Join(err, n.removeNetwork(ctx, net.Interface))
	}
	return nil
}

// items are what the sets hold about a network with the given subnets, which are
// masked. localnet says that its route_localnet is ours to clear.
func (net Network) items(subnets []netip.Prefix, localnet bool) []item {
	key := ifname(net.Interface)
	note := ""
	if localnet {
		note = noteLocalnet
	}
	items := []item{
		{"ifs", nft.Element{Key: key, Comment: note}},
		{"pair", nft.Element{Key: slices.Concat(key, key), Accept: true}},
	}
	for _, f := range families {
		here := false
		for _, s := range subnets {
			if s.Addr().Is6() == f.v6 {
				here = true
				items = append(items, item{f.same, nft.Element{Key: slices.Concat(s.Addr().AsSlice(), key), KeyEnd: slices.Concat(lastAddr(s).AsSlice(), key)}})
			}
		}
		if here && net.Masquerade {
			items = append(items, item{f.masq, nft.Element{Key: key}})
		}
	}
	return items
}

// RemoveNetwork removes the network of an interface, which need not exist any
// more. After the last one, the links are set back to what they were before they
// forwarded. Ports published to boxes of the network stay: they are for
// [NAT.Unpublish].
//
// An interface without a network is os.ErrNotExist.
func (n *NAT) RemoveNetwork(ctx context.Context, iface string) error {
	err := checkInterface(iface)
	if err == nil {
		err = n.removeNetwork(ctx, iface)
	}
	return n.fail("nat.RemoveNetwork", "network "+iface, err)
}

func (n *NAT) removeNetwork(ctx context.Context, iface string) error {
	c, err := n.conn()
	if err != nil {
		return err
	}
	key := ifname(iface)
	localnet := false
	err = c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		return n.removal(ctx, c, key, &localnet)
	}, func(ctx context.Context) (bool, error) {
		found, err := c.Lookup(ctx, n.table, nft.Query{Set: "ifs", Key: key})
		return err == nil && found[0] == nil, err
	})
	if err != nil {
		return n.explain(ctx, c, err)
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if localnet {
		err = clearLocalnet(ctx, n.ns, iface)
	}
	return errors.Join(err, n.restoreIfLast(ctx, c))
}

// perInterface are the sets keyed by one interface name that a network may have
// an element in.
var perInterface = []string{"ifs", "internal", "masq4", "masq6", "snat4", "snat6", "mss"}

// removal returns the batch that deletes what the sets hold about an interface,
// and tells whether its route_localnet is ours to clear.
func (n *NAT) removal(ctx context.Context, c nft.Conn, key []byte, localnet *bool) (*nft.Batch, error) {
	ask := make([]nft.Query, len(perInterface))
	for i, set := range perInterface {
		ask[i] = nft.Query{Set: set, Key: key}
	}
	found, err := c.Lookup(ctx, n.table, ask...)
	if err != nil {
		return nil, err
	}
	if found[0] == nil {
		if err := n.gone(ctx, c); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("the interface has no network: %w", os.ErrNotExist)
	}
	*localnet = found[0].Comment == noteLocalnet
	b := nft.NewBatch(n.table)
	for i, e := range found {
		if e != nil {
			b.DeleteElements(perInterface[i], nft.Element{Key: key})
		}
	}
	for _, set := range []string{"pair", "same4", "same6"} {
		elems, err := c.Elements(ctx, n.table, set)
		if err != nil {
			return nil, err
		}
		for _, e := range elems {
			if mentions(e.Key, string(key)) {
				b.DeleteElements(set, nft.Element{Key: e.Key, KeyEnd: e.KeyEnd})
			}
		}
	}
	return b, nil
}

// mentions reports whether the key of pair or same has the interface in it: it is
// the last part, and in pair also the first.
func mentions(key []byte, iface string) bool {
	if strings.HasSuffix(string(key), iface) {
		return true
	}
	return len(key) == 2*len(iface) && strings.HasPrefix(string(key), iface)
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
		return b, nil
	}, nil)
	return netns.IgnoreNotExist(err)
}

// has4 reports whether one of the subnets is IPv4.
func has4(subnets []netip.Prefix) bool {
	return slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Addr().Is4() })
}

// has6 reports whether one of the subnets is IPv6.
func has6(subnets []netip.Prefix) bool {
	return slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Addr().Is6() })
}
