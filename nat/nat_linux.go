package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/forwarding"
	"github.com/boxwire/boxwire/internal/nft"
	_ "github.com/boxwire/boxwire/internal/nldebug" // BOXWIRE_DEBUG=netlink
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/portlock"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Open opens the table named in opts in the namespace ns, which plays the host. It installs a
// missing table in one transaction. An existing table keeps its ports and networks, so Open may be
// called any number of times and by several programs. A table that an older version of this library
// installed is rebuilt in one transaction, with all that it holds. LoopbackLinks are added to those
// that the table has. With [Options.ReadOnly], Open only looks whether the table is there.
//
// Errors: os.ErrExist for a table of that name that is not ours, or that a newer version of this
// library installed, and with ReadOnly for one of an older version; os.ErrNotExist with ReadOnly for
// a missing table; os.ErrInvalid for a bad name; errors.ErrUnsupported where the kernel lacks
// nftables or is older than 5.10; os.ErrPermission without CAP_NET_ADMIN over the namespace;
// os.ErrClosed for a closed namespace handle.
func Open(ctx context.Context, ns *netns.NS, opts Options) (*NAT, error) {
	opts, err := opts.checked()
	n := &NAT{ns: ns, table: opts.Name, loopback: opts.LoopbackLinks, alive: opts.Alive, unreserved: opts.NoReserve, readOnly: opts.ReadOnly}
	n.turn = make(chan struct{}, 1)
	n.ports = portlock.New(ns, opts.Name)
	switch {
	case err != nil:
	case n.readOnly:
		err = n.find(ctx)
	default:
		err = n.install(ctx)
	}
	if err != nil {
		return nil, n.fail("nat.Open", n.String(), err)
	}
	return n, nil
}

func (n *NAT) install(ctx context.Context) error {
	c, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer n.unlock()
	if err := n.upgrade(ctx, c); err != nil {
		return n.supported(err)
	}
	return n.run(ctx, c, new(installTx))
}

// installTx installs the table, or adds loopback links to an existing one.
type installTx struct{ tableTx }

// Build returns the batch that installs a missing table, or adds the loopback links that it lacks.
func (tx *installTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	n := tx.n
	err := n.checkOwned(ctx, tx.c)
	if errors.Is(err, os.ErrNotExist) {
		b := skeleton(n.table, false, false)
		addItems(b, n.loopbackItems(nil))
		return b, n.deleteFlowtable(ctx, tx.c, b) // one that is left has networks that are gone
	}
	if err != nil || len(n.loopback) == 0 {
		return nil, err // there already, or not ours
	}
	have, err := tx.c.Elements(ctx, n.table, "lo_ok")
	b := nft.NewBatch(n.table)
	addItems(b, n.loopbackItems(names(have)))
	return b, err
}

// Committed reports whether the table is there, and has the loopback links.
func (tx *installTx) Committed(ctx context.Context) (bool, error) {
	if err := tx.n.checkOwned(ctx, tx.c); err != nil {
		return false, netns.IgnoreNotExist(err)
	}
	have, err := tx.c.Elements(ctx, tx.n.table, "lo_ok")
	return len(tx.n.loopbackItems(names(have))) == 0, err
}

func (tx *installTx) explain(_ context.Context, err error) error { return tx.n.supported(err) }

// loopbackItems returns the elements of lo_ok for the links of the options that the table lacks.
func (n *NAT) loopbackItems(have map[string]bool) (items []item) {
	for _, name := range n.loopback {
		if !have[name] {
			items = append(items, item{"lo_ok", nft.Element{Key: ifname(name)}})
		}
	}
	return items
}

// supported names the kernel that is needed, if the kernel refuses the skeleton.
func (n *NAT) supported(err error) error {
	var refused *nft.Error
	if errors.As(err, &refused) {
		switch refused.Err.Errno {
		case unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EINVAL:
			return refuse.As(errors.ErrUnsupported, "the kernel refuses %v: it lacks a part of nftables (the minimum is Linux 5.10 with the modules nf_tables, nft_counter, nft_chain_nat, nft_nat, nft_masq, nft_fib_inet, nft_ct, nft_socket, nft_reject_inet; policies need nft_limit, nft_log, nfnetlink_log, too)",
				refused)
		}
	}
	return err
}

// upgrade rebuilds a table of an older version, with all that it holds.
func (n *NAT) upgrade(ctx context.Context, c nft.Conn) error {
	comment, err := c.TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	current := false
	if err == nil {
		current, err = checkVersion(comment)
	}
	if err != nil || current {
		return err
	}
	nobody := func(string) bool { return false }
	return n.run(ctx, c, &syncTx{desired: State{Owners: nobody}})
}

// checkVersion reports whether a table's comment names the present version of the skeleton. An
// older version is not current. A newer version, and a table that is not ours, are os.ErrExist.
func checkVersion(comment string) (current bool, err error) {
	if comment == skeletonComment {
		return true, nil
	}
	version, ours := versionOf(comment)
	if !ours {
		return false, refuse.As(os.ErrExist, "a table of that name is there and not ours (its comment is %q)", comment)
	}
	if version > skeletonVersion {
		return false, refuse.As(os.ErrExist, "a table of that name is there from a newer version of this library (its comment is %q, not %q)", comment, skeletonComment)
	}
	return false, nil
}

// versionOf returns the version of the skeleton that a table's comment names, and whether the table is
// ours.
func versionOf(comment string) (version int, ours bool) {
	text, ours := strings.CutPrefix(comment, commentPrefix+" ")
	version, err := strconv.Atoi(text)
	return version, ours && err == nil
}

// checkOwned checks that the table exists and is ours. A missing one is os.ErrNotExist.
func (n *NAT) checkOwned(ctx context.Context, c nft.Conn) error {
	comment, err := c.TableComment(ctx, n.table)
	if err != nil {
		return err
	}
	current, err := checkVersion(comment)
	if err == nil && !current {
		err = refuse.As(os.ErrExist, "a table of that name is there from an older version of this library (its comment is %q, not %q; Open rebuilds it)", comment, skeletonComment)
	}
	return err
}

// Delete removes the table with all published ports and networks, and restores the forwarding
// settings that [NAT.AddNetwork] changed. Connections through published ports end, and those that
// the networks let begin or translated.
//
// Ports and networks are removed in one transaction. The table follows once the settings that it
// records are restored. Where that fails, the error says that ports and networks are removed, and
// the next Delete tries the rest again.
//
// Errors: os.ErrNotExist for a table that is gone; os.ErrExist for one that is not ours.
func (n *NAT) Delete(ctx context.Context) error {
	return n.transact(ctx, "nat.Delete", new(deleteTx))
}

// deleteTx deletes the table.
type deleteTx struct {
	tableTx
	had   []item // what the table held
	facts []item // what of it the host is to be set back by
}

// finish ends the flows and restores the host's settings.
func (d *deleteTx) finish(ctx context.Context) error {
	n := d.n
	n.retain(nil)
	n.elements = 0
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	gone, err := decodeItems(d.had)
	if err == nil {
		err = n.flush(ctx, gone, nil)
	}
	s := sweep{n: n, had: d.had, is: d.facts}
	err = errors.Join(err, s.run(ctx))
	if len(d.facts) > 0 {
		err = errors.Join(err, d.restore(ctx))
	}
	if err != nil {
		return fmt.Errorf("the ports and networks are gone, but: %w", err)
	}
	n.remember(nil)
	return nil
}

// Build returns the batch that deletes everything but the records of the host's settings, or the
// whole table if there are none.
func (d *deleteTx) Build(ctx context.Context, _ []*nft.Element) (b *nft.Batch, err error) {
	n := d.n
	if err := n.checkOwned(ctx, d.c); err != nil {
		return nil, err
	}
	if d.had, err = n.readItems(ctx, d.c, setNames()...); err != nil {
		return nil, err
	}
	d.facts = slices.DeleteFunc(itemsOf(d.had, kindFact), func(it item) bool { return it.set == "lo_ok" })
	b = nft.NewBatch(n.table)
	if err := n.revoke(ctx, d.c, b, ""); err != nil {
		return nil, err
	}
	b.DeleteTable()
	if len(d.facts) > 0 {
		addSkeleton(b, n.table)
		addItems(b, d.facts)
	}
	if err := n.deleteQuietTable(ctx, d.c, b); err != nil {
		return nil, err
	}
	if err := n.deleteFlowtable(ctx, d.c, b); err != nil {
		return nil, err
	}
	return b, n.deleteGuardTable(ctx, d.c, b)
}

// Committed reports whether the table holds no port and no network.
func (d *deleteTx) Committed(ctx context.Context) (bool, error) {
	left, err := d.n.readItems(ctx, d.c, setsOfKind(kindNetwork, kindOwned, kindDerived)...)
	return len(left) == 0, netns.IgnoreNotExist(err)
}

// restore restores the host's settings and deletes the table. The table goes last: it says what to
// restore, and drops packets from links that still forward.
func (d *deleteTx) restore(ctx context.Context) error {
	alone, err := d.n.handOver(ctx, d.c, recordsOf(d.facts))
	if err == nil {
		err = forwarding.Restore(ctx, d.n.ns, alone.changes())
	}
	if err = errors.Join(err, d.n.unreserve(ctx, d.c)); err != nil {
		return err
	}
	return d.n.run(ctx, d.c, new(dropTx))
}

// dropTx deletes the table, if it is there.
type dropTx struct{ tableTx }

// Build returns the batch that deletes the table.
func (tx *dropTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	if err := tx.n.checkOwned(ctx, tx.c); err != nil {
		return nil, netns.IgnoreNotExist(err)
	}
	b := nft.NewBatch(tx.n.table)
	b.DeleteTable()
	return b, nil
}

// conn returns a connection to nftables in the namespace.
func (n *NAT) conn() (nft.Conn, error) {
	if n.isClosed() {
		return nft.Conn{}, os.ErrClosed
	}
	x, err := nsconn.Shared(n.ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return nft.Conn{}, err
	}
	return nft.New(x), nil
}

func (n *NAT) fail(op, subject string, err error) error {
	return fail.New(op, n.ns, subject, err)
}

// errGone is a table that was removed underneath.
type errGone struct{ table string }

func (e errGone) Error() string {
	return fmt.Sprintf("the table inet %s is gone: something removed it, and Open installs it again", e.table)
}

func (e errGone) Is(target error) bool { return target == os.ErrNotExist }

// explain replaces the kernel's ENOENT, which does not name what is missing: the table, or an element
// that belongs to what a call deletes.
func (n *NAT) explain(ctx context.Context, c nft.Conn, err error) error {
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if gone := n.gone(ctx, c); gone != nil {
		return gone
	}
	if set := missing(err); set != "" {
		return fmt.Errorf("%w: the set %s lacks an element (Sync restores it)", ErrDamaged, set)
	}
	return err
}

// gone returns an error if the table is missing.
func (n *NAT) gone(ctx context.Context, c nft.Conn) error {
	_, err := c.TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		return errGone{n.table}
	}
	return err
}

// listed reads what a verb lists, in one generation of the ruleset.
func listed[T any](ctx context.Context, n *NAT, op string, read func(context.Context, nft.Conn) (T, error)) (all T, err error) {
	c, err := n.conn()
	if err != nil {
		return all, n.fail(op, n.String(), err)
	}
	err = c.Steady(ctx, func(ctx context.Context) error {
		if err := n.gone(ctx, c); err != nil {
			return err
		}
		all, err = read(ctx, c)
		return err
	})
	return all, n.fail(op, n.String(), err)
}
