package nat

import (
	"context"
	"os"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// finishTimeout bounds what follows a commit: it is done even if the caller's
// context ends, because the whole is done or undone.
const finishTimeout = 30 * time.Second

// AddNetwork adds a network in one transaction, and then makes the host forward for it. The
// documentation of [Network] says which settings that changes and how they are restored. Where a
// setting cannot be written, the call undoes all that it did. Flows of the boxes that began before
// and that the network would not let begin end.
//
// Errors: os.ErrExist if the interface has a network already, or a subnet overlaps one of another
// network, which the error names, or another program has the table that Flowtable needs; os.ErrInvalid
// for bad input; errors.ErrUnsupported for an IPv6 subnet on a kernel without IPv6, and for Flowtable on
// one without usable flowtables; syscall.EROFS for an IPv6 subnet where /proc/sys is read-only.
func (n *NAT) AddNetwork(ctx context.Context, net Network) error {
	return n.putNetwork(ctx, "nat.AddNetwork", net, false)
}

// SetNetwork adds a network, or replaces the one that its interface has, in one transaction, or in
// two as [NAT.Sync] says. It may be repeated. Pinholes that net does not list are deleted, and so
// are policies of addresses that are in none of its subnets. Links that have come since the last
// call, the network's own or to the outside, are made to forward.
//
// A flow ends if the network let it begin before and does not now, or would translate it otherwise.
// Other flows go on. A repeated call ends none.
//
// Errors are those of [NAT.AddNetwork], except os.ErrExist for a network on the same interface.
func (n *NAT) SetNetwork(ctx context.Context, net Network) error {
	return n.putNetwork(ctx, "nat.SetNetwork", net, true)
}

// DeleteNetwork removes the network of an interface, with its pinholes and the AllowTo of other
// networks that name it. The interface need not exist any more. After the last network, the
// forwarding settings are restored. Ports that lead to boxes of the network stay published until
// [NAT.Unpublish]. Flows that the network let begin or translated end, unless the host forwards
// them without it.
//
// Errors: os.ErrNotExist for an interface without a network. An error that says that the network is
// removed is about what follows: ending flows and restoring settings. The next change of a network
// or Sync tries those again.
func (n *NAT) DeleteNetwork(ctx context.Context, iface string) error {
	const op = "nat.DeleteNetwork"
	tx := new(deleteNetworkTx)
	tx.iface = iface
	if err := checkInterface(iface); err != nil {
		return n.fail(op, tx.subject(), err)
	}
	return n.transact(ctx, op, tx)
}

// overlaps returns an error if a subnet of the network overlaps that of another, or a trusted prefix
// with VisitorSNAT does.
func (n *NAT) overlaps(ctx context.Context, c nft.Conn, net Network) error {
	for _, f := range families {
		if !net.has(f.v6) {
			continue
		}
		items, err := n.readItems(ctx, c, f.same, f.far)
		if err != nil {
			return err
		}
		for _, it := range items {
			if err := overlapsElement(net, it); err != nil {
				return err
			}
		}
	}
	return nil
}

// overlapsElement returns an error if the network cannot be beside another one, which an element of
// same4, same6, far4 or far6 is of.
func overlapsElement(net Network, it item) error {
	name := it.network()
	switch f := familyOfSet(it.set); {
	case name == net.Interface:
	case it.set == f.same:
		other, err := decodeAddrs(it)
		if err != nil {
			return err
		}
		for _, s := range net.Subnets {
			if other.prefix.Overlaps(s) {
				return refuse.As(os.ErrExist, "the subnet %v overlaps %v of the network %s", s, other.prefix, name)
			}
		}
	case it.set == f.far:
		_, needed := net.seenAs(f.v6)
		other, err := decodeRange(it, len(f.etherType()))
		if err != nil {
			return err
		}
		if p, overlaps := other.meets(net.Trusted); needed && overlaps {
			return refuse.As(os.ErrExist, "the trusted prefix %v overlaps one of the network %s, which has VisitorSNAT, too", p, name)
		}
	}
	return nil
}
