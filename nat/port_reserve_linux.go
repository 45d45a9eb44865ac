package nat

import (
	"context"

	"github.com/boxwire/boxwire/internal/portlock"
)

// reserve adds the ports that are not reserved yet to the hold. On an error nothing of this call is
// reserved, and the returned port is the one at fault.
//
// Beyond the limits of sockets, it only checks that no other program uses a port now. With lenient,
// it does not check.
func (n *NAT) reserve(ctx context.Context, hold *portlock.Hold, ports []Port, lenient bool) (Port, error) {
	if n.unreserved {
		return Port{}, nil
	}
	at, err := n.ports.Reserve(ctx, hold, hostRanges(ports), lenient)
	if err != nil && len(ports) > 0 {
		return ports[at], err
	}
	return Port{}, err
}

// release releases the reservations of ports that are not published any more, but not what the
// ports in keep need.
func (n *NAT) release(gone, keep []Port) {
	if n.ports.Len() > 0 {
		n.ports.Release(hostRanges(gone), hostRanges(keep))
	}
}

// retain releases all reservations but those of the ports.
func (n *NAT) retain(ports []Port) {
	if n.ports.Len() > 0 {
		n.ports.Retain(hostRanges(ports))
	}
}

// hostRanges returns the host ports of the ports.
func hostRanges(ports []Port) []portlock.Range {
	all := make([]portlock.Range, len(ports))
	for i := range ports {
		all[i] = ports[i].claim()
	}
	return all
}

// Close releases the reserved host ports and closes the proxies of [NAT.Proxy]. Published ports
// stay published. The next program that opens the table and calls [NAT.Sync] reserves them again.
// Closing twice is fine; use after Close is os.ErrClosed.
func (n *NAT) Close() error {
	if n == nil || n.turn == nil {
		return nil
	}
	n.turn <- struct{}{} // what is under way ends first
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.closeProxies()
	n.ports.Close()
	<-n.turn
	return nil
}

func (n *NAT) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}
