package nat

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// SetPolicies sets the policies of boxes in one transaction: all of them or none. A policy replaces
// those that its addresses have, as a whole: an address of the former policy that the new one does
// not name has none afterwards. Then the connections end that the new policies do not allow and the
// old ones did. The call may be repeated.
//
// All elements change at the same moment, and a packet's lookups follow each other. What the old
// policies and the new ones deny is denied all the while. What both allow, by different rules, may
// be denied at that moment, once.
//
// The cost depends on the rules that are given and replaced, and on the number of tracked
// connections, but not on the number of other policies.
//
// Errors: os.ErrNotExist for an address that is in no network's subnet; os.ErrInvalid for bad input
// (see [Policy] and [Rule]), for addresses of different networks in one policy, and for rules that
// take more than 65536 elements; os.ErrPermission without CAP_NET_ADMIN over the namespace.
func (n *NAT) SetPolicies(ctx context.Context, policies ...Policy) error {
	const op = "nat.SetPolicies"
	checked, fault, err := checkPolicies(policies)
	if err != nil {
		return n.fail(op, fault.subject(), err)
	}
	if len(policies) == 0 {
		return nil
	}
	tx := &policiesTx{set: checked}
	tx.want = make(map[netip.Addr]Policy)
	for _, p := range checked {
		for _, a := range p.Box {
			tx.want[a] = p
		}
	}
	return n.transact(ctx, op, tx)
}

// DeletePolicies deletes the policies of boxes in one transaction: all of them or none. Each box is
// named by any address of its policy. Its grants go, too; its connections go on.
//
// Errors: os.ErrNotExist for an address without a policy; os.ErrInvalid for bad input.
func (n *NAT) DeletePolicies(ctx context.Context, boxes ...netip.Addr) error {
	const op = "nat.DeletePolicies"
	if len(boxes) == 0 {
		return nil
	}
	tx := &policiesTx{gone: boxes}
	if err := checkBox(boxes); err != nil {
		return n.fail(op, tx.subject(), err)
	}
	return n.transact(ctx, op, tx)
}

// ListPolicies lists the policies, sorted by their first address, with what they denied.
func (n *NAT) ListPolicies(ctx context.Context) ([]PolicyState, error) {
	return listed(ctx, n, "nat.ListPolicies", n.readAllPolicies)
}

// policiesTx sets or deletes policies.
type policiesTx struct {
	tableTx
	set  []Policy     // to set, checked
	gone []netip.Addr // to delete the policies of

	want policies // of set, by address
	had  policies // what was there of all addresses concerned
	at   Policy   // that an error is about
}

func (tx *policiesTx) subject() string {
	switch {
	case len(tx.at.Box) > 0:
		return tx.at.subject()
	case len(tx.set) > 0:
		return tx.set[0].subject()
	case len(tx.gone) > 0:
		return Policy{Box: tx.gone}.subject()
	}
	return tx.tableTx.subject()
}

// Build returns the batch that turns the former policies of the addresses into the wanted ones.
func (tx *policiesTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	n := tx.n
	b := nft.NewBatch(n.table)
	there, err := tx.c.HasSet(ctx, n.table, families[0].policy)
	switch {
	case err != nil:
		return nil, err
	case !there && len(tx.set) == 0:
		if err := n.gone(ctx, tx.c); err != nil {
			return nil, err
		}
		return nil, errNoPolicy(tx.gone[0])
	case !there:
		if err := n.checkOwned(ctx, tx.c); err != nil {
			return nil, err
		}
		addPolicies(b, n.table)
	}
	if err := tx.read(ctx); err != nil {
		return nil, err
	}
	have, err := tx.had.items()
	if err != nil {
		return nil, err
	}
	var want []item
	for a, p := range tx.want {
		tx.at = p
		items, err := p.policyItems(a)
		if err != nil {
			return nil, err
		}
		want = append(want, items...)
	}
	tx.at = Policy{}
	if have, want, err = tx.count(ctx, have, want); err != nil {
		return nil, err
	}
	grants, err := tx.grants(ctx)
	if err != nil {
		return nil, err
	}
	changeItems(b, append(have, grants...), want)
	return b, nil
}

// read reads the former policies of all addresses concerned: those of the call, and the others that
// their policies name.
func (tx *policiesTx) read(ctx context.Context) error {
	named := append(slices.Collect(maps.Keys(tx.want)), tx.gone...)
	had, err := tx.n.readPolicies(ctx, tx.c, named...)
	if err != nil {
		return damagedPolicy(err)
	}
	for _, a := range tx.gone {
		if _, ok := had[a]; !ok {
			return errNoPolicy(a)
		}
	}
	var others []netip.Addr
	for _, p := range had {
		for _, a := range p.Box {
			if !slices.Contains(named, a) && !slices.Contains(others, a) {
				others = append(others, a)
			}
		}
	}
	more, err := tx.n.readPolicies(ctx, tx.c, others...)
	if err != nil {
		return damagedPolicy(err)
	}
	maps.Copy(had, more)
	tx.had = had
	return nil
}

func errNoPolicy(a netip.Addr) error {
	return refuse.As(os.ErrNotExist, "the address %v has no policy", a)
}

// damagedPolicy says that a record cannot be read, and what to do.
func damagedPolicy(err error) error {
	return fmt.Errorf("%w: %w (Sync restores it)", ErrDamaged, err)
}

// count adds to the items how many addresses with policies each network has, before and after. It
// refuses an address in no network, and a policy over several.
func (tx *policiesTx) count(ctx context.Context, have, want []item) (was, is []item, err error) {
	var addrs []netip.Addr
	for a := range tx.want {
		addrs = append(addrs, a)
	}
	addrs = append(addrs, tx.lost()...)
	networks, err := tx.n.policyNetworks(ctx, tx.c, addrs)
	if err != nil {
		return nil, nil, err
	}
	more := make(map[string]int) // addresses with a policy, by network
	of := make(map[netip.Addr]string)
	for i, a := range addrs {
		p, wanted := tx.want[a]
		if wanted && networks[i] == "" {
			tx.at = p
			return nil, nil, refuse.As(os.ErrNotExist, "the address %v is in no network's subnet", a)
		}
		of[a] = networks[i]
		if _, had := tx.had[a]; wanted && !had {
			more[networks[i]]++
		} else if !wanted && had {
			more[networks[i]]--
		}
	}
	for _, p := range tx.set {
		for _, a := range p.Box {
			if of[a] != of[p.Box[0]] {
				tx.at = p
				return nil, nil, refuse.Input("the addresses %v and %v are in different networks: %s and %s", p.Box[0], a, of[p.Box[0]], of[a])
			}
		}
	}
	delete(more, "")
	for iface, change := range more {
		found, err := tx.c.Lookup(ctx, tx.n.table, nft.Query{Set: "policed_addrs", Key: ifname(iface)})
		if err != nil {
			return nil, nil, err
		}
		old := addrsOf(found[0])
		have = append(have, policedItems(iface, old)...)
		want = append(want, policedItems(iface, uint32(max(0, int(old)+change)))...)
	}
	return have, want, nil
}

// lost returns the addresses that had a policy and have none after the change.
func (tx *policiesTx) lost() (addrs []netip.Addr) {
	for a := range tx.had {
		if _, ok := tx.want[a]; !ok {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// grants returns the grants of the addresses that have no policy any more.
func (tx *policiesTx) grants(ctx context.Context) ([]item, error) {
	gone := tx.lost()
	if len(gone) == 0 {
		return nil, nil
	}
	all, err := tx.n.readItems(ctx, tx.c, families[0].grant, families[1].grant)
	return slices.DeleteFunc(all, func(it item) bool { return !slices.Contains(gone, grantedTo(it)) }), err
}

// Committed reports whether the records of all addresses concerned are the wanted ones.
func (tx *policiesTx) Committed(ctx context.Context) (bool, error) {
	addrs := slices.Collect(maps.Keys(tx.want))
	addrs = append(addrs, tx.lost()...)
	now, err := tx.n.readPolicies(ctx, tx.c, addrs...)
	if err != nil {
		return false, err
	}
	same := func(a, b Policy) bool { return a.record() == b.record() }
	return maps.EqualFunc(now, tx.want, same), nil
}

func (tx *policiesTx) explain(ctx context.Context, err error) error {
	return tx.n.supported(tx.n.explain(ctx, tx.c, err))
}

// finish ends the connections that the change forbids.
func (tx *policiesTx) finish(ctx context.Context) error {
	s := policySweep{n: tx.n, old: tx.had, now: tx.want}
	return s.run(ctx)
}
