package nat

import (
	"context"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Limits of a grant's lifetime.
const (
	minGrant = time.Second
	maxGrant = 30 * 24 * time.Hour
)

// Grant lets a box with Egress open connections that its policy does not allow, for a time: what a
// name has resolved to, for the lifetime of the answer. Box is an address of the box, of the family
// of the rules' peers. A rule that is granted already lasts until the later call's time is over.
// Connections that began in time go on after it. A TCP connection does not open another one of the
// same addresses and ports.
//
// A rule's Peer is a single address (/32 or /128), its ports are one or all; Except and Host are
// not for grants. [NAT.DeletePolicies] takes the grants of a box away; [NAT.SetPolicies] and
// [NAT.Sync] leave them, as long as the box has a policy.
//
// Errors: os.ErrNotExist for a box without a policy; os.ErrInvalid for bad input, among it a
// lifetime below a second or above 30 days.
func (n *NAT) Grant(ctx context.Context, box netip.Addr, lifetime time.Duration, rules ...Rule) error {
	const op = "nat.Grant"
	tx := &grantTx{box: box, lifetime: lifetime}
	err := checkBox([]netip.Addr{box})
	switch {
	case err != nil:
	case lifetime < minGrant || maxGrant < lifetime:
		err = refuse.Input("the lifetime %v is not between %v and %v", lifetime, minGrant, maxGrant)
	default:
		for i, r := range rules {
			var it item
			if it, err = grantItem(box, r); err != nil {
				err = refuse.Input("rule %d: %w", i, err)
				break
			}
			tx.add(it, lifetime)
		}
	}
	if err != nil {
		return n.fail(op, tx.subject(), err)
	}
	if len(rules) == 0 {
		return nil
	}
	return n.transact(ctx, op, tx)
}

// grantItem returns the element of a grant.
func grantItem(box netip.Addr, r Rule) (item, error) {
	r, err := r.checked()
	switch v6 := box.Is6(); {
	case err != nil:
		return item{}, err
	case r.Host, len(r.Except) > 0:
		return item{}, refuse.Input("a grant has neither Host nor Except")
	case !r.Peer.IsValid() || !r.Peer.IsSingleIP():
		return item{}, refuse.Input("a grant is for a single address, not for %q", r.String())
	case r.Peer.Addr().Is6() != v6:
		return item{}, refuse.Input("the peer %v and the box %v are of different families", r.Peer, box)
	case r.last() != r.Port:
		return item{}, refuse.Input("a grant is for one port or for all, not for %d to %d", r.Port, r.PortLast)
	}
	for k := range r.keys(box.Is6()) {
		return item{familyOf(box).grant, nft.Element{Key: ruleKey(box.AsSlice(), k, r.Peer)}}, nil
	}
	return item{}, nil // a rule has at least one key
}

// grantedTo returns the box of a grant.
func grantedTo(it item) netip.Addr {
	n := int(familyOfSet(it.set).size())
	if len(it.elem.Key) < n {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(it.elem.Key[:n])
	return a
}

// grantTx adds grants to a box.
type grantTx struct {
	tableTx
	box      netip.Addr
	lifetime time.Duration
	items    []item
}

// add adds a grant, once.
func (tx *grantTx) add(it item, lifetime time.Duration) {
	it.elem.Timeout = lifetime
	for _, other := range tx.items {
		if other.setKey() == it.setKey() {
			return
		}
	}
	tx.items = append(tx.items, it)
}

func (tx *grantTx) subject() string { return "a grant to " + tx.box.String() }

// Build returns the batch. What is granted already is deleted and added again, because kernels
// before Linux 6.12 do not change the lifetime of an element.
func (tx *grantTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	ask := []nft.Query{{Set: familyOf(tx.box).out.limited, Key: tx.box.AsSlice()}}
	for _, it := range tx.items {
		ask = append(ask, nft.Query{Set: it.set, Key: it.elem.Key})
	}
	found, err := tx.c.Lookup(ctx, tx.n.table, ask...)
	if err != nil {
		return nil, err
	}
	if found[0] == nil {
		if err := tx.n.gone(ctx, tx.c); err != nil {
			return nil, err
		}
		return nil, errNoPolicy(tx.box)
	}
	b := nft.NewBatch(tx.n.table)
	var add, again []item
	for i, it := range tx.items {
		switch e := found[i+1]; {
		case e == nil:
			add = append(add, it)
		case e.Expires < tx.lifetime: // else it lasts longer already
			again, add = append(again, it), append(add, it)
		}
	}
	deleteItems(b, again)
	addItems(b, add)
	return b, nil
}

// Committed reports whether all grants are there.
func (tx *grantTx) Committed(ctx context.Context) (bool, error) {
	var ask []nft.Query
	for _, it := range tx.items {
		ask = append(ask, nft.Query{Set: it.set, Key: it.elem.Key})
	}
	found, err := tx.c.Lookup(ctx, tx.n.table, ask...)
	for _, e := range found {
		if e == nil {
			return false, err
		}
	}
	return true, err
}

func (tx *grantTx) finish(context.Context) error { return nil }
