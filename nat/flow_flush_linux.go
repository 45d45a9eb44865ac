package nat

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/nft"
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	table, err := n.flows()
	if err != nil {
		return err
	}
	if any, err := table.Any(ctx); err != nil || !any {
		return notEnded(err)
	}
	return notEnded(table.Flush(ctx, n.targets(ctx, gone, added), n.isLocal))
}

// targets returns the flows to delete.
func (n *NAT) targets(ctx context.Context, gone, added []Port) []ct.Target {
	targets := make([]ct.Target, 0, len(gone)+len(added))
	alone, asked := false, false
	for i, p := range slices.Concat(gone, added) {
		t := ct.Target{Proto: uint8(p.Proto), Addr: p.Host.Addr(), First: p.Host.Port(), Last: p.last()}
		if i < len(gone) {
			t.Translated = p.Box
		} else {
			t.Unanswered = p.Proto == TCP
		}
		// No other port of the table has the number of one on all addresses.
		if t.Addr == netip.IPv6Unspecified() && t.Translated.IsValid() {
			if !asked {
				// Where it cannot be found out, as while the ruleset changes all the time, the flows
				// are read, which takes longer.
				is, err := n.translatesAlone(ctx)
				alone, asked = is && err == nil, true
			}
			t.Alone = alone
		}
		targets = append(targets, t)
	}
	return targets
}

// translatesAlone reports whether no other table translates destinations of IPv6.
func (n *NAT) translatesAlone(ctx context.Context) (bool, error) {
	x, err := nsconn.Shared(n.ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return false, err
	}
	chains, err := nft.New(x).Chains(ctx)
	if err != nil {
		return false, err
	}
	for _, chain := range chains {
		own := chain.Family == unix.NFPROTO_INET && chain.Table == n.table
		reaches := chain.Family == unix.NFPROTO_INET || chain.Family == unix.NFPROTO_IPV6
		if reaches && !own && chain.Type == "nat" && (chain.Hook == unix.NF_INET_PRE_ROUTING || chain.Hook == unix.NF_INET_LOCAL_OUT) {
			return false, nil
		}
	}
	var names []byte
	oerr := nsconn.Open(ctx, n.ns, func() {
		names, err = os.ReadFile("/proc/thread-self/net/ip6_tables_names") // of ip6tables-legacy
	})
	switch {
	case oerr != nil:
		return false, oerr
	case errors.Is(err, os.ErrNotExist):
		return true, nil
	case err != nil: // who may not read it, does not know
		return false, nil
	}
	return !slices.Contains(strings.Fields(string(names)), "nat"), nil
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
