package portlock

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// Picks are free ports that the kernel has chosen. They are reserved until they are
// withdrawn or released.
type Picks struct {
	Ports   []HostPort // in the order asked for
	lock    *Lock
	sockets []socket
}

// Pick reserves a free port for each, whose port is 0. The error is for the one of the
// index at; nothing is reserved then.
func (l *Lock) Pick(ctx context.Context, wanted []HostPort) (p *Picks, at int, err error) {
	p = &Picks{lock: l}
	err = l.bind(ctx, wanted, func(i int, f socket, err error) error {
		var number uint16
		if err == nil {
			number, err = f.number(wanted[i].Proto)
		}
		if err != nil {
			at = i
			return err
		}
		p.Ports = append(p.Ports, HostPort{wanted[i].Proto, netip.AddrPortFrom(wanted[i].Host.Addr(), number)})
		p.sockets = append(p.sockets, f)
		return nil
	})
	if err != nil {
		p.Close()
		return nil, at, err
	}
	for i, port := range p.Ports {
		l.sockets[port] = p.sockets[i]
	}
	return p, 0, nil
}

// Withdraw makes the ports no longer reserved ones. Their sockets stay open until
// Close, so that Pick does not choose the ports again.
func (p *Picks) Withdraw() {
	var still []socket
	for i, port := range p.Ports {
		// A publish that failed late may have released the port, and closed its socket.
		if f, ok := p.lock.sockets[port]; ok && f == p.sockets[i] {
			still = append(still, f)
			delete(p.lock.sockets, port)
		}
	}
	p.sockets = still
}

// Close closes the sockets of ports that were withdrawn.
func (p *Picks) Close() {
	for _, f := range p.sockets {
		f.Close()
	}
}

// Shed releases so many of the picks that the limits of the Lock are kept.
func (l *Lock) Shed(ctx context.Context, p *Picks) error {
	most, err := l.most(ctx, len(l.sockets))
	for i, port := range p.Ports {
		if len(l.sockets) <= most {
			break
		}
		l.close(port, p.sockets[i])
	}
	return err
}

// number is the port that a socket of the protocol is bound to.
func (s socket) number(proto uint8) (uint16, error) {
	if s == noSocket {
		return 0, refuse.As(errors.ErrUnsupported, "choosing a port: the kernel has no %v for this family", protoName(proto))
	}
	to, err := unix.Getsockname(int(s))
	switch to := to.(type) {
	case *unix.SockaddrInet4:
		return uint16(to.Port), nil
	case *unix.SockaddrInet6:
		return uint16(to.Port), nil
	}
	s.Close()
	return 0, fmt.Errorf("reading the chosen port: %w", os.NewSyscallError("getsockname", err))
}
