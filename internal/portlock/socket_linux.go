package portlock

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"syscall"

	"github.com/boxwire/boxwire/internal/sockfilter"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

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

// socketKind is a kind of socket, as socket(2) takes it.
type socketKind struct{ domain, typ, proto int }

func (p HostPort) kind() socketKind {
	k := socketKind{unix.AF_INET, unix.SOCK_STREAM, 0}
	if p.Host.Addr().Is6() {
		k.domain = unix.AF_INET6
	}
	switch p.Proto {
	case unix.IPPROTO_UDP:
		k.typ = unix.SOCK_DGRAM
	case unix.IPPROTO_SCTP:
		k.proto = unix.IPPROTO_SCTP
	}
	return k
}

// open opens a socket in the calling thread's namespace. Where the kernel does not
// have the protocol, it is noSocket.
func (k socketKind) open() (socket, error) {
	fd, err := unix.Socket(k.domain, k.typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, k.proto)
	switch err {
	case nil:
		return socket(fd), nil
	case unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT:
		return noSocket, nil
	}
	return noSocket, fmt.Errorf("reserving the host port: %w", os.NewSyscallError("socket", err))
}

// stock has sockets that are not bound yet. Opening one takes a thread that enters
// the namespace, which costs more than all the rest; an open one can be bound from
// any thread. A caller that publishes port by port therefore has several opened at
// a time.
type stock struct {
	free map[socketKind][]socket
	used map[socketKind]bool // was asked for before
}

// ahead is how many are opened at a time.
const ahead = 8

// take returns a socket for each of the ports, opened in the namespace.
func (st *stock) take(ctx context.Context, ns *netns.NS, ports []HostPort) ([]socket, error) {
	got := make([]socket, len(ports))
	var missing []int
	for i, s := range ports {
		k := s.kind()
		if free := st.free[k]; len(free) > 0 {
			got[i], st.free[k] = free[len(free)-1], free[:len(free)-1]
		} else {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return got, nil
	}
	if st.free == nil {
		st.free, st.used = make(map[socketKind][]socket), make(map[socketKind]bool)
	}
	n := 0
	_, err := netns.Do(ctx, ns, func(context.Context) (_ struct{}, err error) {
		for _, i := range missing {
			if got[i], err = ports[i].kind().open(); err != nil {
				return struct{}{}, err
			}
			n++
		}
		k := ports[missing[0]].kind()
		for len(missing) == 1 && st.used[k] && got[missing[0]] != noSocket && len(st.free[k]) < ahead-1 {
			f, err := k.open()
			if err != nil {
				break // it can do without
			}
			st.free[k] = append(st.free[k], f)
		}
		st.used[k] = true
		return struct{}{}, nil
	})
	if err == nil {
		return got, nil
	}
	for _, i := range missing[n:] {
		got[i] = noSocket
	}
	st.put(ports, got)
	return nil, err
}

// put takes sockets back that were bound to nothing.
func (st *stock) put(ports []HostPort, all []socket) {
	for i, f := range all {
		switch k := ports[i].kind(); {
		case f == noSocket:
		case len(st.free[k]) < ahead:
			st.free[k] = append(st.free[k], f)
		default:
			f.Close()
		}
	}
}

func (st *stock) close() {
	for k, all := range st.free {
		for _, f := range all {
			f.Close()
		}
		delete(st.free, k)
	}
}

// bind opens a socket for each of the ports and binds it. each gets the sockets in
// order, or why one could not be bound, until it returns an error. If the kernel
// lacks the protocol, no program can take the port: the socket is noSocket. Port 0
// is a free port.
func (l *Lock) bind(ctx context.Context, ports []HostPort, each func(i int, f socket, err error) error) error {
	if len(ports) == 0 {
		return nil
	}
	all, err := l.stock.take(ctx, l.ns, ports)
	if err != nil {
		return err
	}
	for i, f := range all {
		var err error
		if f != noSocket {
			if err = prepare(int(f), ports[i], l.mark); err != nil {
				f.Close()
				f, err = noSocket, bindError(err)
			}
		}
		if err := each(i, f, err); err != nil {
			l.stock.put(ports[i+1:], all[i+1:])
			return err
		}
	}
	return nil
}

func bindError(err error) error {
	if err == unix.EACCES {
		return fmt.Errorf("reserving the host port: %w (it takes CAP_NET_BIND_SERVICE, or Options.NoReserve)", os.NewSyscallError("bind", err))
	}
	return fmt.Errorf("reserving the host port: %w", os.NewSyscallError("bind", err))
}

// MarkOf is the mark of the sockets (SO_MARK) of a table's ports, by which another
// NAT of the same table knows them. They send nothing, so that it marks no packet.
func MarkOf(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte("boxwire reserves ports for table inet " + name))
	return h.Sum32() | 1
}

func socketLimit() int {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil || r.Cur/4 > maxSockets {
		return maxSockets
	}
	return int(r.Cur / 4)
}

func prepare(fd int, p HostPort, mark uint32) error {
	set := func(level, option, value int) { _ = unix.SetsockoptInt(fd, level, option, value) }
	a := p.Host.Addr()
	// A published address may be one that the host gets later. A kernel without
	// these options refuses it by bind.
	set(unix.SOL_IP, unix.IP_FREEBIND, 1)
	if a.Is6() {
		set(unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		set(unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
	}
	set(unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	// Before the socket is bound, and after.
	if err := sockfilter.Nothing(fd); err != nil {
		return err
	}
	if p.Proto != unix.IPPROTO_UDP {
		// Connections that a program before us had may linger in TIME_WAIT. Others
		// that set this, as every server does, are kept out by listening.
		set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	var to unix.Sockaddr
	if a.Is6() {
		to = &unix.SockaddrInet6{Port: int(p.Host.Port()), Addr: a.As16()}
	} else {
		to = &unix.SockaddrInet4{Port: int(p.Host.Port()), Addr: a.As4()}
	}
	if err := unix.Bind(fd, to); err != nil || p.Proto == unix.IPPROTO_UDP {
		return err
	}
	return unix.Listen(fd, 1)
}
