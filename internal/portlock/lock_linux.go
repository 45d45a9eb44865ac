package portlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

const (
	maxSockets = 4096 // of one Lock, and at most a quarter of the descriptors that the process may have
	fewSockets = 128  // that a Lock may have however few ports the kernel has to give

	// longestWait is the last of the waits for a port, which begin with a millisecond
	// and double.
	longestWait = 64 * time.Millisecond
)

// Lock is reserved ports of a namespace. Its methods are not for concurrent use.
type Lock struct {
	ns      *netns.NS
	mark    uint32
	sockets map[HostPort]socket
	stock   stock // sockets for the next ones
	quarter int   // of ip_local_port_range, if it was read
}

// New returns a Lock without ports.
func New(ns *netns.NS, name string) *Lock {
	return &Lock{ns: ns, mark: MarkOf(name), sockets: make(map[HostPort]socket)}
}

// Close releases all ports. The Lock may be used again.
func (l *Lock) Close() {
	l.Retain(nil)
	l.stock.close()
}

// Len returns the number of sockets.
func (l *Lock) Len() int { return len(l.sockets) }

// Mark returns the mark of the sockets.
func (l *Lock) Mark() uint32 { return l.mark }

// Socket returns the descriptor of the socket that holds a port.
func (l *Lock) Socket(p HostPort) (fd int, ok bool) {
	s := l.sockets[p]
	return int(s), s > 0
}

// Missing returns the ports of a range that have no socket yet.
func (l *Lock) Missing(r Range) (all []HostPort) {
	for p := range r.ports {
		if _, held := l.sockets[p]; !held {
			all = append(all, p)
		}
	}
	return all
}

// Hold is what calls of Reserve have reserved for one purpose. The zero Hold is nothing.
type Hold struct {
	lock      *Lock
	ports     []HostPort
	sockets   []socket // of ports; noSocket where the kernel does not have the protocol
	contested []Range  // could not be bound, because another Lock of the same name has them
}

// Cancel releases what is reserved.
func (h *Hold) Cancel() {
	for i, f := range h.sockets {
		if f != noSocket {
			h.lock.close(h.ports[i], f)
		}
	}
	*h = Hold{}
}

// Rebind reserves what could not be reserved because a socket of this process was in
// the way, which has been closed since. A program that was just being started closes
// its copy in a moment. Another Lock of the same name that has the port keeps it.
func (h *Hold) Rebind(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for pause := time.Millisecond; len(h.contested) > 0 && pause <= longestWait; pause *= 2 {
		if pause > time.Millisecond {
			time.Sleep(pause)
		}
		contested := h.contested
		h.contested = nil
		if _, err := h.lock.Reserve(ctx, h, contested, true); err != nil {
			break
		}
	}
	h.contested = nil
}

// Reserve reserves the ranges that are not reserved yet, and adds them to the hold. The
// error is for the range of the index at; nothing of this call is reserved then.
//
// Beyond the limits it only checks that no other program has a port now. With lenient,
// it does not check.
func (l *Lock) Reserve(ctx context.Context, h *Hold, ranges []Range, lenient bool) (at int, err error) {
	for pause := time.Millisecond; ; pause *= 2 {
		at, err = l.tryReserve(ctx, h, ranges, lenient)
		// A port that no socket has, and that could not be bound a moment ago: a
		// program that was just being started has closed it.
		used, ok := errors.AsType[inUse](err)
		if !ok || used.l.inode != 0 || pause > longestWait || ctx.Err() != nil {
			return at, err
		}
		time.Sleep(pause)
	}
}

func (l *Lock) tryReserve(ctx context.Context, h *Hold, ranges []Range, lenient bool) (at int, err error) {
	after := len(l.sockets)
	for _, r := range ranges {
		if c := r.Count(); c <= MaxRange {
			after += c
		}
	}
	most, err := l.most(ctx, after)
	if err != nil {
		return 0, err
	}
	// A call takes half of what is left, so that there is some for the next.
	room := (most - len(l.sockets) + 1) / 2
	var bare, contested []int // ranges beyond the limits; bound by another socket
	var ports []HostPort
	var of []int // the range of each of ports
	for i, r := range ranges {
		missing := l.Missing(r)
		if r.Count() > MaxRange || len(ports)+len(missing) > room {
			bare = append(bare, i)
			continue
		}
		for _, p := range missing {
			ports, of = append(ports, p), append(of, i)
		}
	}
	fresh := Hold{lock: l, ports: ports, sockets: make([]socket, 0, len(ports))}
	err = l.bind(ctx, ports, func(i int, f socket, err error) error {
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			contested = append(contested, of[i])
		case err != nil:
			at = of[i]
			return err
		}
		fresh.sockets = append(fresh.sockets, f)
		return nil
	})
	if err == nil && !lenient {
		at, err = l.unused(ctx, ranges, bare, contested)
	}
	if err != nil {
		fresh.Cancel()
		return at, err
	}
	for _, i := range contested {
		fresh.contested = append(fresh.contested, ranges[i])
	}
	h.add(&fresh)
	return 0, nil
}

// add adds what is bound, and from now on the Lock has it.
func (h *Hold) add(fresh *Hold) {
	h.lock = fresh.lock
	for i, f := range fresh.sockets {
		if f != noSocket {
			h.lock.sockets[fresh.ports[i]] = f
		}
	}
	h.ports = append(h.ports, fresh.ports...)
	h.sockets = append(h.sockets, fresh.sockets...)
	h.contested = append(h.contested, fresh.contested...)
}

// most is how many sockets a Lock may have, if there are so many after a call. The
// kernel gives a port that is bound to no socket that asks for any, on no address:
// where they are many, they are at most a quarter of those that it has to give
// (ip_local_port_range), so that programs of the host find one to connect from.
func (l *Lock) most(ctx context.Context, after int) (int, error) {
	limit := socketLimit()
	if after < fewSockets {
		return limit, nil
	}
	if l.quarter == 0 {
		first, last, err := LocalRange(ctx, l.ns)
		if err != nil {
			return 0, err
		}
		l.quarter = max((int(last)-int(first)+1)/4, fewSockets)
	}
	return min(limit, l.quarter), nil
}

// Refresh has the limits read again, which the administrator may have changed.
func (l *Lock) Refresh() { l.quarter = 0 }

// localRange is the setting of the ports that the kernel gives to sockets that ask for
// any.
const localRange = "net.ipv4.ip_local_port_range"

// LocalRange reads which ports the kernel gives to sockets that ask for any.
func LocalRange(ctx context.Context, ns *netns.NS) (first, last uint16, err error) {
	text, err := ns.Sysctl(ctx, localRange)
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(text, &first, &last); err != nil {
		return 0, 0, fmt.Errorf("%s: %q: %w", localRange, text, err)
	}
	return first, last, nil
}

// Release releases the ranges but for the ports that keep has.
func (l *Lock) Release(ranges, keep []Range) {
	if len(ranges) == 0 || len(l.sockets) == 0 {
		return
	}
	needed := l.heldOf(keep)
	for _, r := range ranges {
		for p := range r.ports {
			if f, held := l.sockets[p]; held && !needed[p] {
				l.close(p, f)
			}
		}
	}
}

// Retain releases all but the ranges.
func (l *Lock) Retain(keep []Range) {
	if len(l.sockets) == 0 {
		return
	}
	needed := l.heldOf(keep)
	for p, f := range l.sockets {
		if !needed[p] {
			l.close(p, f)
		}
	}
}

func (l *Lock) close(p HostPort, f socket) {
	f.Close()
	delete(l.sockets, p)
}

// heldOf returns the ports of the ranges that have a socket.
func (l *Lock) heldOf(ranges []Range) map[HostPort]bool {
	m := make(map[HostPort]bool)
	for _, r := range ranges {
		for p := range r.ports {
			if _, held := l.sockets[p]; held {
				m[p] = true
			}
		}
	}
	return m
}
