package nat

import (
	"context"
	"errors"
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
	var targets [2][]ct.Target // of each family
	for i, p := range slices.Concat(gone, added) {
		t := ct.Target{Proto: uint8(p.Proto), Addr: p.Host.Addr(), First: p.Host.Port(), Last: p.last()}
		if i < len(gone) {
			t.Translated = p.Box
		} else {
			t.Unanswered = p.Proto == TCP
		}
		family := 0
		if t.Addr.Is6() {
			family = 1
		}
		targets[family] = append(targets[family], t)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	table, err := n.flows()
	if err != nil {
		return err
	}
	if len(targets[0]) == 0 || len(targets[1]) == 0 {
		return notEnded(table.Flush(ctx, slices.Concat(targets[0], targets[1]), n.isLocal))
	}
	// The kernel walks its table once for each family at least, which takes milliseconds: at once.
	other, err := nsconn.Own(n.ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer other.Close()
	ended := make(chan error, 1)
	go func() { ended <- ct.New(other).Flush(ctx, targets[1], n.isLocal) }()
	err = table.Flush(ctx, targets[0], n.isLocal)
	err6 := <-ended
	if errors.Is(err6, unix.EMFILE) || errors.Is(err6, unix.ENFILE) { // no descriptor for a socket of its own
		err6 = table.Flush(ctx, targets[1], n.isLocal)
	}
	return errors.Join(notEnded(err), notEnded(err6))
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
