package nat

import (
	"context"
	"net/netip"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/nsconn"
	"golang.org/x/sys/unix"
)

// The kernel decides once a flow how it is translated. So a change of mappings flushes the flows of
// the host ports after its commit.

// mappedTarget is the conntrack target for a host port that has just been published. The next
// packet of a flushed flow is translated to the box. A TCP connection of a program of the host
// stays: only unanswered ones are flushed, whose next packet is a SYN again.
func mappedTarget(proto Proto, addr netip.Addr, first, last uint16) ct.Target {
	t := unmappedTarget(proto, addr, first, last)
	t.Unanswered = proto == TCP
	return t
}

// unmappedTarget is the conntrack target for a host port that does not lead to its box any more.
func unmappedTarget(proto Proto, addr netip.Addr, first, last uint16) ct.Target {
	return ct.Target{Proto: uint8(proto), Addr: addr, First: first, Last: last}
}

// targets returns the target of each port, made by mappedTarget or unmappedTarget.
func targets(ports []Port, as func(Proto, netip.Addr, uint16, uint16) ct.Target) []ct.Target {
	t := make([]ct.Target, len(ports))
	for i, p := range ports {
		t[i] = as(p.Proto, p.Host.Addr(), p.Host.Port(), p.last())
	}
	return t
}

// flush deletes the conntrack entries of the targets. They became stale with the commit, so flush
// ignores the end of ctx. Without conntrack in the kernel there is nothing to flush.
func (n *NAT) flush(ctx context.Context, targets []ct.Target) error {
	if len(targets) == 0 {
		return nil
	}
	table, err := n.flows()
	if err != nil {
		return err
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
