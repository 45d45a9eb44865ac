package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/boxwire/boxwire/internal/ct"
	"golang.org/x/sys/unix"
)

// Flows that are older than a mapping keep the translation that they began with,
// or none: conntrack decides once a flow. So what changes mappings flushes the
// flows of their host ports after its commit.

// begun is the target for a host port that has just begun to lead somewhere. The
// next packet of an older flow then takes the new way. TCP connections of a
// program of the host stay with it: only those that nobody answered are flushed,
// because their next packet is a SYN again.
func begun(proto Proto, addr netip.Addr, first, last uint16) ct.Target {
	t := ended(proto, addr, first, last)
	t.Unanswered = proto == TCP
	return t
}

// ended is the target for a host port that no longer leads where it did.
func ended(proto Proto, addr netip.Addr, first, last uint16) ct.Target {
	return ct.Target{Proto: uint8(proto), Addr: addr, First: first, Last: last}
}

// targets are those of the ports, as begun or ended makes them.
func targets(ports []Port, as func(Proto, netip.Addr, uint16, uint16) ct.Target) []ct.Target {
	t := make([]ct.Target, len(ports))
	for i, p := range ports {
		t[i] = as(p.Proto, p.Host.Addr(), p.Host.Port(), p.last())
	}
	return t
}

// flush flushes the flows of the targets, after the commit of what made them
// stale; so it goes on when ctx ends. Where the kernel cannot, there is nothing to
// do but to let them end by themselves.
func (n *NAT) flush(ctx context.Context, targets []ct.Target) error {
	if len(targets) == 0 {
		return nil
	}
	table, err := n.flows()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	err = table.Flush(ctx, targets, n.isLocal)
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return fmt.Errorf("the change is made, but older flows were not ended: %w", err)
}

// flows is the conntrack table of the namespace.
func (n *NAT) flows() (ct.Table, error) {
	c, err := n.ns.Exchange(unix.NETLINK_NETFILTER)
	return ct.New(c), err
}

// isLocal asks the kernel whether an address is one of the namespace, as the
// rules do by "fib daddr type local".
func (n *NAT) isLocal(ctx context.Context, a netip.Addr) (bool, error) {
	h, err := n.route(ctx, a)
	return h.kind == unix.RTN_LOCAL, err
}
