package nat

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// A reserved port is bound by a socket of ours, so that no other program takes it
// and none is disturbed by what is published. Limits of that:
const (
	maxRange   = 256  // ports of a range; longer ones are kept by ip_local_reserved_ports
	maxSockets = 4096 // of one NAT, and at most a quarter of the descriptors that it may have
)

// spot is what one socket is bound to.
type spot struct {
	proto Proto
	host  netip.AddrPort
}

// socket is the descriptor of a socket that holds a port. It is no os.File, which
// would be closed when its NAT is forgotten: a port stays reserved until it is
// given back.
type socket int

// noSocket is in the place of a socket that is not needed.
const noSocket socket = -1

// Close closes the socket, when no program is just being started: until its exec
// closes what it should not inherit, it keeps the port.
func (s socket) Close() {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	unix.Close(int(s))
}

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
	opened := make(map[spot]socket, len(spots))
	undo = func() {
		for s, f := range opened {
			f.Close()
			delete(n.sockets, s)
		}
	}
	if len(spots) > 0 {
		_, err = netns.Do(ctx, n.ns, func(ctx context.Context) (struct{}, error) {
			for i, s := range spots {
				f, err := bind(s, n.mark())
				switch {
				case errors.Is(err, unix.EADDRINUSE):
					contested = append(contested, of[i])
				case err != nil:
					p = of[i]
					return struct{}{}, err
				case f != noSocket:
					opened[s] = f
				}
			}
			return struct{}{}, nil
		})
	}
	if err == nil && !lenient {
		p, err = n.unused(ctx, bare, contested)
	}
	if err != nil {
		undo()
		return func() {}, p, err
	}
	for s, f := range opened {
		n.sockets[s] = f
	}
	n.contested = contested
	return undo, Port{}, nil
}

// rebind reserves what could not be reserved because a socket of ours was in the
// way, which has been closed since: if not by this program, then perhaps by one
// that it was just starting, which closes it in a moment. Another NAT of the same
// table that has the port keeps it.
func (n *NAT) rebind(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for pause := time.Millisecond; len(n.contested) > 0 && pause < 100*time.Millisecond; pause *= 2 {
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

// mark is the mark of the sockets (SO_MARK), by which another NAT of the same
// table knows them. They send nothing, so that it marks no packet.
func (n *NAT) mark() uint32 {
	h := fnv.New32a()
	h.Write([]byte("boxwire reserves ports for table inet " + n.table))
	return h.Sum32() | 1
}

func socketLimit() int {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil || r.Cur/4 > maxSockets {
		return maxSockets
	}
	return int(r.Cur / 4)
}

// bind opens a socket that holds a port, in the calling thread's namespace. Where
// the kernel does not have the protocol, nobody can take the port: it is noSocket.
// Port 0 is a free port.
func bind(s spot, mark uint32) (socket, error) {
	domain, typ, proto := unix.AF_INET, unix.SOCK_STREAM, 0
	if s.host.Addr().Is6() {
		domain = unix.AF_INET6
	}
	switch s.proto {
	case UDP:
		typ = unix.SOCK_DGRAM
	case SCTP:
		proto = unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	switch err {
	case nil:
	case unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT:
		return noSocket, nil
	default:
		return noSocket, fmt.Errorf("reserving the host port: %w", os.NewSyscallError("socket", err))
	}
	if err := prepare(fd, s, mark); err != nil {
		unix.Close(fd)
		if err == unix.EACCES {
			return noSocket, fmt.Errorf("reserving the host port: %w (it takes CAP_NET_BIND_SERVICE)", os.NewSyscallError("bind", err))
		}
		return noSocket, fmt.Errorf("reserving the host port: %w", os.NewSyscallError("bind", err))
	}
	return socket(fd), nil
}

// passNothing is a socket filter that lets nothing in (bpf(4): ret #0).
var passNothing = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}

func attach(fd int, filter []unix.SockFilter) error {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog))
}

func prepare(fd int, s spot, mark uint32) error {
	set := func(level, option, value int) { _ = unix.SetsockoptInt(fd, level, option, value) }
	a := s.host.Addr()
	// A published address may be one that the host gets later. A kernel without
	// these options refuses it by bind.
	set(unix.SOL_IP, unix.IP_FREEBIND, 1)
	if a.Is6() {
		set(unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		set(unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
	}
	set(unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	// Before the socket is bound, and after.
	if err := attach(fd, passNothing); err != nil {
		return err
	}
	if s.proto != UDP {
		// Connections that a program before us had may linger in TIME_WAIT. Others
		// that set this, as every server does, are kept out by listening.
		set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	var to unix.Sockaddr
	if a.Is6() {
		to = &unix.SockaddrInet6{Port: int(s.host.Port()), Addr: a.As16()}
	} else {
		to = &unix.SockaddrInet4{Port: int(s.host.Port()), Addr: a.As4()}
	}
	if err := unix.Bind(fd, to); err != nil || s.proto == UDP {
		return err
	}
	return unix.Listen(fd, 1)
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
	return nil
}

func (n *NAT) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}
