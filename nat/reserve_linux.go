package nat

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A reserved port is bound by a socket of ours, so that no other program takes it
// and none is disturbed by what is published. Limits of that:
const (
	maxRange   = 256  // ports of a range; longer ones are kept by ip_local_reserved_ports
	maxSockets = 4096 // of one NAT, and at most a quarter of the descriptors that it may have
)

// longestWait is the last of the waits for a port, which begin with a millisecond
// and double.
const longestWait = 64 * time.Millisecond

// spots are the single ports that a port takes of the host, if each is to have a
// socket.
func (p Port) spots() []spot {
	if p.count() > maxRange {
		return nil
	}
	all := make([]spot, p.count())
	for i := range all {
		all[i] = spot{p.Proto, netip.AddrPortFrom(p.Host.Addr(), p.Host.Port()+uint16(i))}
	}
	return all
}

// reserve reserves the ports that are not reserved yet. The error is for the port
// returned; nothing is reserved then. undo gives back what was reserved.
//
// Beyond the limits it is only made sure that no other program has a port now.
// With lenient, it does not matter if one has.
func (n *NAT) reserve(ctx context.Context, ports []Port, lenient bool) (undo func(), p Port, err error) {
	if n.unreserved {
		return func() {}, Port{}, nil
	}
	for pause := time.Millisecond; ; pause *= 2 {
		undo, p, err = n.tryReserve(ctx, ports, lenient)
		// A port that nobody has who could not bind it a moment ago: a program that
		// was just being started has closed it.
		var used errInUse
		if !errors.As(err, &used) || used.l.inode != 0 || pause > longestWait || ctx.Err() != nil {
			return undo, p, err
		}
		time.Sleep(pause)
	}
}

func (n *NAT) tryReserve(ctx context.Context, ports []Port, lenient bool) (undo func(), p Port, err error) {
	// A call takes half of what is left, so that there is some for the next.
	room := (socketLimit() - len(n.sockets) + 1) / 2
	var bare, contested []Port // beyond the limits; bound by somebody
	var spots []spot
	var of []Port // whose each of spots is
	for _, p := range ports {
		missing := n.missing(p)
		if p.count() > maxRange || len(spots)+len(missing) > room {
			bare = append(bare, p)
			continue
		}
		for _, s := range missing {
			spots, of = append(spots, s), append(of, p)
		}
	}
	opened := make([]socket, len(spots))
	for i := range opened {
		opened[i] = noSocket
	}
	undo = func() {
		for i, f := range opened {
			if f != noSocket {
				f.Close()
				delete(n.sockets, spots[i])
			}
		}
	}
	err = n.bind(ctx, spots, func(i int, f socket, err error) error {
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			contested = append(contested, of[i])
		case err != nil:
			p = of[i]
			return err
		}
		opened[i] = f
		return nil
	})
	if err == nil && !lenient {
		p, err = n.unused(ctx, bare, contested)
	}
	if err != nil {
		undo()
		return func() {}, p, err
	}
	for i, f := range opened {
		if f != noSocket {
			n.sockets[spots[i]] = f
		}
	}
	n.contested = contested
	return undo, Port{}, nil
}

// rebind reserves what could not be reserved because a socket of ours was in the
// way, which has been closed since: if not by this program, then perhaps by one
// that it was just starting, which closes it in a moment. Another NAT of the same
// table that has the port keeps it.
func (n *NAT) rebind(ctx context.Context) {
	if len(n.contested) == 0 {
		return
	}
	ctx = context.WithoutCancel(ctx)
	for pause := time.Millisecond; len(n.contested) > 0 && pause <= longestWait; pause *= 2 {
		if pause > time.Millisecond {
			time.Sleep(pause)
		}
		if _, _, err := n.reserve(ctx, n.contested, true); err != nil {
			break
		}
	}
	n.contested = nil
}

// missing are the spots of a port that have no socket yet.
func (n *NAT) missing(p Port) (spots []spot) {
	for _, s := range p.spots() {
		if _, held := n.sockets[s]; !held {
			spots = append(spots, s)
		}
	}
	return spots
}

// release gives back what is reserved for the items, which are no longer
// published, but for what the ports need.
func (n *NAT) release(items []item, but ...Port) {
	if len(items) == 0 || len(n.sockets) == 0 {
		return
	}
	keep := make(map[spot]bool)
	for _, p := range but {
		for _, s := range p.spots() {
			keep[s] = true
		}
	}
	for _, it := range items {
		p, err := decodeItem(it)
		if !isPortSet(it.set) || err != nil {
			continue
		}
		for _, s := range p.spots() {
			if f, held := n.sockets[s]; held && !keep[s] {
				f.Close()
				delete(n.sockets, s)
			}
		}
	}
}

// retain gives back what is reserved for anything but the items.
func (n *NAT) retain(items []item) {
	if len(n.sockets) == 0 {
		return
	}
	keep := make(map[spot]bool)
	for _, it := range items {
		if p, err := decodeItem(it); err == nil && isPortSet(it.set) {
			for _, s := range p.spots() {
				keep[s] = true
			}
		}
	}
	for s, f := range n.sockets {
		if !keep[s] {
			f.Close()
			delete(n.sockets, s)
		}
	}
}

// Close gives back the reserved ports and ends what [NAT.Proxy] began. What is
// published stays, and is reserved again by the next program that opens the table
// and calls [NAT.Sync]. Closing twice is fine; use after Close is os.ErrClosed.
func (n *NAT) Close() error {
	if n == nil || n.turn == nil {
		return nil
	}
	n.turn <- struct{}{} // what is under way ends first
	defer func() { <-n.turn }()
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.closeProxies()
	n.retain(nil)
	n.stock.close()
	return nil
}

func (n *NAT) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}
