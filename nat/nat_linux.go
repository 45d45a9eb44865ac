package nat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// Open returns the table named in opts in the namespace ns, which plays the host.
// A table that is missing is installed in one transaction. One that is there and
// ours is left as it is, ports and networks included; so Open may be called any
// number of times, by several programs. One that an older version of this library
// installed is built anew with all that it holds, in one transaction, too.
// LoopbackLinks are added to those it has.
//
// Errors: os.ErrExist for a table of that name that is not ours, or that a newer
// version of this library installed; os.ErrInvalid for a bad name;
// errors.ErrUnsupported where the kernel lacks nftables or is older than 5.10;
// os.ErrPermission without CAP_NET_ADMIN over the namespace; os.ErrClosed.
func Open(ctx context.Context, ns *netns.NS, opts Options) (*NAT, error) {
	opts, err := opts.checked()
	n := &NAT{ns: ns, table: opts.Name, loopback: opts.LoopbackLinks, alive: opts.Alive, unreserved: opts.NoReserve}
	n.turn = make(chan struct{}, 1)
	n.sockets, n.mark = make(map[spot]socket), markOf(opts.Name)
	if err == nil {
		err = n.install(ctx)
	}
	if err != nil {
		return nil, n.fail("nat.Open", n.String(), err)
	}
	return n, nil
}

func (n *NAT) install(ctx context.Context) error {
	return n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error {
		if err := n.upgrade(ctx, c); err != nil {
			return n.supported(err)
		}
		err := c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
			err := n.ours(ctx, c)
			if errors.Is(err, os.ErrNotExist) {
				b := skeleton(n.table)
				addItems(b, n.loopbackItems(nil))
				return b, nil
			}
			if err != nil || len(n.loopback) == 0 {
				return nil, err // there already, or not ours
			}
			have, err := c.Elements(ctx, n.table, "lo_ok")
			b := nft.NewBatch(n.table)
			addItems(b, n.loopbackItems(names(have)))
			return b, err
		}, func(ctx context.Context) (bool, error) {
			err := n.ours(ctx, c)
			if err != nil {
				return false, netns.IgnoreNotExist(err)
			}
			have, err := c.Elements(ctx, n.table, "lo_ok")
			return len(n.loopbackItems(names(have))) == 0, err
		})
		return n.supported(err)
	})
}

// loopbackItems are the elements of lo_ok for the links of the options, but for
// those that it has.
func (n *NAT) loopbackItems(have map[string]bool) (items []item) {
	for _, name := range n.loopback {
		if !have[name] {
			items = append(items, item{"lo_ok", nft.Element{Key: ifname(name)}})
		}
	}
	return items
}

// supported says which kernel is needed where an older one refuses the skeleton.
func (n *NAT) supported(err error) error {
	var refused *nft.Error
	if errors.As(err, &refused) {
		switch refused.Err.Errno {
		case unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EINVAL:
			return fmt.Errorf("the kernel refuses %v: it lacks a part of nftables (Linux 5.10 with modules nf_tables, nft_chain_nat, nft_masq, nft_fib_inet, nft_ct is the minimum): %w",
				refused, errors.ErrUnsupported)
		}
	}
	return err
}

// upgrade builds a table of an older version anew, with all that it holds.
func (n *NAT) upgrade(ctx context.Context, c nft.Conn) error {
	comment, err := c.TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	current := false
	if err == nil {
		current, err = judge(comment)
	}
	if err != nil || current {
		return err
	}
	nobody := func(string) bool { return false }
	s := syncing{n: n, c: c, desired: State{Owners: nobody}, undo: func() {}}
	if err := c.Commit(ctx, s.build, s.landed); err != nil {
		return err
	}
	return s.finish(ctx)
}

// judge says by a table's comment whether its skeleton is the one that we make. An
// older one is not; a newer one, and a table that is not ours, are os.ErrExist.
func judge(comment string) (current bool, err error) {
	if comment == skeletonComment {
		return true, nil
	}
	text, ours := strings.CutPrefix(comment, commentPrefix+" ")
	version, verr := strconv.Atoi(text)
	if !ours || verr != nil {
		return false, notOurs(comment)
	}
	if version > skeletonVersion {
		return false, fmt.Errorf("a table of that name is there from a newer version of this library (its comment is %q, not %q): %w", comment, skeletonComment, os.ErrExist)
	}
	return false, nil
}

// ours checks that the table is there and ours. A missing one is os.ErrNotExist.
func (n *NAT) ours(ctx context.Context, c nft.Conn) error {
	comment, err := c.TableComment(ctx, n.table)
	if err != nil {
		return err
	}
	current, err := judge(comment)
	if err == nil && !current {
		err = fmt.Errorf("a table of that name is there from an older version of this library (its comment is %q, not %q; Open builds it anew): %w", comment, skeletonComment, os.ErrExist)
	}
	return err
}

func notOurs(comment string) error {
	return fmt.Errorf("a table of that name is there and not ours (its comment is %q): %w", comment, os.ErrExist)
}

// Delete removes the table with all published ports and networks in one
// transaction, and sets back what [NAT.AddNetwork] changed of the links'
// forwarding. Connections through published ports end.
//
// A table that is gone is os.ErrNotExist, one that is not ours os.ErrExist.
func (n *NAT) Delete(ctx context.Context) error {
	err := n.exclusive(ctx, func(ctx context.Context, c nft.Conn) error {
		return n.explain(ctx, c, n.delete(ctx, c))
	})
	return n.fail("nat.Delete", n.String(), err)
}

func (n *NAT) delete(ctx context.Context, c nft.Conn) error {
	var f flipped // that was set back
	var ports []Port
	err := c.Commit(ctx, func(ctx context.Context) (*nft.Batch, error) {
		if err := n.ours(ctx, c); err != nil {
			return nil, err
		}
		ports = nil
		err := n.eachPort(ctx, c, func(it item) error {
			p, err := decodeItem(it)
			ports = append(ports, p)
			return err
		})
		if err != nil {
			return nil, err
		}
		// The settings first: as long as the table is there, it says what to set
		// back, and drops what links that still forward should not.
		if f, err = n.readFlipped(ctx, c); err != nil {
			return nil, err
		}
		if err := f.restore(ctx, n.ns); err != nil {
			return nil, err
		}
		if err := n.unlist(ctx, c); err != nil {
			return nil, err
		}
		b := nft.NewBatch(n.table)
		if err := n.revoke(ctx, c, b, nil); err != nil {
			return nil, err
		}
		b.DeleteTable()
		return b, nil
	}, func(ctx context.Context) (bool, error) {
		err := n.ours(ctx, c)
		return errors.Is(err, os.ErrNotExist), netns.IgnoreNotExist(err)
	})
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, nft.ErrUnknown):
		return err // without the table, nothing may forward that did not
	case err != nil: // the table stays, and its networks need what it says
		return errors.Join(err, f.reapply(context.WithoutCancel(ctx), n.ns))
	}
	n.remember(nil)
	n.retain(nil)
	return n.flush(ctx, targets(ports, ended))
}

// conn returns nftables in the namespace.
func (n *NAT) conn() (nft.Conn, error) {
	if n.isClosed() {
		return nft.Conn{}, os.ErrClosed
	}
	x, err := n.ns.Exchange(unix.NETLINK_NETFILTER)
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

// explain replaces the kernel's ENOENT, which does not say what is missing, if it
// is the table.
func (n *NAT) explain(ctx context.Context, c nft.Conn, err error) error {
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if gone := n.gone(ctx, c); gone != nil {
		return gone
	}
	return err
}

// gone returns an error if the table is not there.
func (n *NAT) gone(ctx context.Context, c nft.Conn) error {
	_, err := c.TableComment(ctx, n.table)
	if errors.Is(err, os.ErrNotExist) {
		return errGone{n.table}
	}
	return err
}
