package nat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// SetGuards sets the guards of bridge ports in one transaction: all of them or none. A guard replaces
// the one that its port has. The call may be repeated. The first guard adds the table of the family
// bridge, with the name of the NAT's.
//
// The cost does not depend on the number of other guards.
//
// Errors: os.ErrNotExist for a port that does not exist, and for an address that is in no network's
// subnet; os.ErrExist for a MAC address of another port's guard, and where another program has a bridge
// table of that name; os.ErrInvalid for bad input (see [Guard]); errors.ErrUnsupported where the kernel
// lacks the family bridge of nftables; os.ErrPermission without CAP_NET_ADMIN over the namespace.
func (n *NAT) SetGuards(ctx context.Context, guards ...Guard) error {
	const op = "nat.SetGuards"
	checked, fault, err := checkGuards(guards)
	if err != nil {
		return n.fail(op, fault.subject(), err)
	}
	if len(checked) == 0 {
		return nil
	}
	return n.transact(ctx, op, &guardsTx{set: checked})
}

// DeleteGuards deletes the guards of ports in one transaction: all of them or none. The ports need not
// exist any more. A port that does is open from then on.
//
// Errors: os.ErrNotExist for a port without a guard; os.ErrInvalid for bad input.
func (n *NAT) DeleteGuards(ctx context.Context, ports ...string) error {
	const op = "nat.DeleteGuards"
	for i, p := range ports {
		err := checkInterface(p)
		if err == nil && slices.Contains(ports[:i], p) {
			err = refuse.Input("the port is named twice")
		}
		if err != nil {
			return n.fail(op, Guard{Port: p}.subject(), err)
		}
	}
	if len(ports) == 0 {
		return nil
	}
	return n.transact(ctx, op, &guardsTx{gone: ports})
}

// ListGuards lists the guards, sorted by their port, with what they have stopped.
func (n *NAT) ListGuards(ctx context.Context) ([]GuardState, error) {
	return listed(ctx, n, "nat.ListGuards", n.readAllGuards)
}

// guardsTx sets or deletes guards.
type guardsTx struct {
	tableTx
	set  []Guard  // to set, checked
	gone []string // the ports to delete the guards of
	at   string   // the port that an error is about
}

func (tx *guardsTx) subject() string {
	switch {
	case tx.at != "":
		return Guard{Port: tx.at}.subject()
	case len(tx.set) > 0:
		return tx.set[0].subject()
	}
	return Guard{Port: tx.gone[0]}.subject()
}

// ports are those whose guards change.
func (tx *guardsTx) ports() []string {
	ports := slices.Clone(tx.gone)
	for _, g := range tx.set {
		ports = append(ports, g.Port)
	}
	return ports
}

// Build returns the batch that turns the former guards of the ports into the wanted ones.
func (tx *guardsTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	n := tx.n
	if err := n.checkOwned(ctx, tx.c); err != nil {
		return nil, err
	}
	b := nft.NewBatch(n.table)
	there, err := n.ownsBridgeTable(ctx, tx.c)
	switch {
	case err != nil:
		return nil, err
	case !there && len(tx.set) == 0:
		return nil, errNoGuard(tx.gone[0])
	case !there:
		b.In(unix.NFPROTO_BRIDGE)
		addGuardTable(b)
		b.In(unix.NFPROTO_INET)
	}
	part, err := tx.c.HasSet(ctx, n.table, setArrived)
	if err != nil {
		return nil, err
	}
	if !part {
		addGuardPart(b)
	}
	had, have, err := n.readGuards(ctx, tx.c, tx.ports()...)
	if err != nil {
		return nil, err
	}
	for _, p := range tx.gone {
		if _, ok := had[p]; !ok {
			tx.at = p
			return nil, errNoGuard(p)
		}
	}
	if !part { // the elements went with the set
		_, have = splitGuardItems(have)
	}
	want, err := tx.want(ctx)
	if err == nil {
		changeGuardItems(b, have, want)
	}
	if err == nil && b.Len() > 0 {
		err = n.flowGuards(ctx, tx.c, b)
	}
	return b, err
}

// want returns the elements of the wanted guards, and refuses those that cannot be there.
func (tx *guardsTx) want(ctx context.Context) (want []item, err error) {
	near, err := tx.n.nearMACs(ctx, tx.ports())
	if err != nil {
		return nil, err
	}
	ask := make([]nft.Query, len(tx.set))
	for i, g := range tx.set {
		ask[i] = nft.Query{Set: setBoxes, Key: g.MAC}
	}
	taken, err := tx.c.In(unix.NFPROTO_BRIDGE).Lookup(ctx, tx.n.table, ask...)
	if err != nil {
		return nil, err
	}
	for i, g := range tx.set {
		tx.at = g.Port
		addrs := slices.DeleteFunc(slices.Clone(g.Box), netip.Addr.IsLinkLocalUnicast)
		networks, err := tx.n.policyNetworks(ctx, tx.c, addrs)
		if err != nil {
			return nil, err
		}
		for i, iface := range networks {
			if iface == "" {
				return nil, errNoNetwork(addrs[i])
			}
		}
		if near[g.Port] == nil {
			return nil, refuse.As(os.ErrNotExist, "there is no link of that name: create it, and bring it up after this call")
		}
		if e := taken[i]; e != nil && !slices.Contains(tx.ports(), e.Comment) {
			return nil, errTakenMAC(g, e.Comment)
		}
		want = append(want, g.items(near[g.Port])...)
	}
	tx.at = ""
	return want, nil
}

func errNoNetwork(a netip.Addr) error {
	return refuse.As(os.ErrNotExist, "the address %v is in no network's subnet", a)
}

func errTakenMAC(g Guard, port string) error {
	return refuse.As(os.ErrExist, "the guard of port %s has the MAC address %v", port, g.MAC)
}

// Committed reports whether the guards of the ports are the wanted ones.
func (tx *guardsTx) Committed(ctx context.Context) (bool, error) {
	now, _, err := tx.n.readGuards(ctx, tx.c, tx.ports()...)
	want := make(guards)
	for _, g := range tx.set {
		want[g.Port] = g
	}
	return maps.EqualFunc(now, want, Guard.equal), err
}

func (tx *guardsTx) explain(ctx context.Context, err error) error {
	var refused *nft.Error
	if errors.As(err, &refused) {
		switch refused.Err.Errno {
		case unix.EOPNOTSUPP, unix.EAFNOSUPPORT:
			return refuse.As(errors.ErrUnsupported, "the kernel refuses %v: guards need the family bridge of nftables (CONFIG_NF_TABLES_BRIDGE)", refused)
		}
	}
	return tx.n.explain(ctx, tx.c, err)
}

// ownsBridgeTable reports whether the bridge table is there. One that is not ours is an error.
func (n *NAT) ownsBridgeTable(ctx context.Context, c nft.Conn) (bool, error) {
	comment, err := c.In(unix.NFPROTO_BRIDGE).TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	current := false
	if err == nil {
		current, err = checkVersion(comment)
	}
	switch {
	case err != nil:
		return false, fmt.Errorf("table bridge %s: %w", n.table, err)
	case !current:
		return false, fmt.Errorf("%w: table bridge %s is of an older version of this library (Sync rebuilds it)", ErrDamaged, n.table)
	}
	return true, nil
}

// deleteGuardTable deletes the bridge table with all guards, if it is ours.
func (n *NAT) deleteGuardTable(ctx context.Context, c nft.Conn, b *nft.Batch) error {
	comment, err := c.In(unix.NFPROTO_BRIDGE).TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := checkVersion(comment); err == nil {
		b.In(unix.NFPROTO_BRIDGE)
		b.DeleteTable()
		b.In(unix.NFPROTO_INET)
	}
	return nil
}
