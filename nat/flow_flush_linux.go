package nat

import (
	"context"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/nsconn"
	"golang.org/x/sys/unix"
)

// The kernel decides once a flow how it is translated. So a change of mappings flushes the flows of
// the host ports after its commit.

// flush deletes the conntrack entries of host ports that do not lead to their boxes any more (gone),
// and of those that have just been published (added). The next packet of a flow to the latter is
// translated to the box. A TCP connection of a program of the host stays: only unanswered ones are
// deleted, whose next packet is a SYN again.
//
// The entries became stale with the commit, so flush ignores the end of ctx. Without conntrack in
// the kernel there are none.
func (n *NAT) flush(ctx context.Context, gone, added []Port) error {
	if len(gone)+len(added) == 0 {
		return nil
	}
	table, err := n.flows()
	if err != nil {
		return err
	}
	targets := make([]ct.Target, 0, len(gone)+len(added))
	for i, p := range slices.Concat(gone, added) {
		targets = append(targets, ct.Target{
			Proto: uint8(p.Proto), Addr: p.Host.Addr(), First: p.Host.Port(), Last: p.last(),
			Unanswered: i >= len(gone) && p.Proto == TCP,
		})
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	return notEnded(table.Flush(ctx, targets, n.isLocal))
}

// flows returns the conntrack table of the namespace.
func (n *NAT) flows() (ct.Table, error) {
	c, err := nsconn.Shared(n.ns, unix.NETLINK_NETFILTER)
	return ct.New(c), err
}

// isLocal reports whether an address is one of the namespace, by the route that "fib daddr type
// local" looks up, too.
func (n *NAT) isLocal(ctx context.Context, a netip.Addr) (bool, error) {
	h, err := n.route(ctx, a)
	return h.Type == unix.RTN_LOCAL, err
}
