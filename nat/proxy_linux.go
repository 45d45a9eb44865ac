package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"github.com/boxwire/boxwire/internal/nft"
	"golang.org/x/sys/unix"
)

// proxy is the part of a Proxy that is Linux's.
type proxy struct {
	nat    *NAT
	cancel context.CancelFunc
	stop   func() // closes the socket
	wg     sync.WaitGroup
	once   sync.Once
}

// Proxy relays connections from Host to Box within this process, for the two cases
// that the kernel cannot translate: visitors on the host's own ::1, and visitors
// over IPv6 for a box with IPv4 only. So Host may be ::1, and of another family
// than Box. Everything else is better published: the box sees the host's address
// for that of the visitor, each packet costs two system calls more, and it ends
// with the process.
//
// It listens in the namespace of the NAT until it is closed, by [Proxy.Close] or
// [NAT.Close]; ctx is for the start only. [::]:8080 takes no IPv4 visitors. Where
// the same port is published on [::] and reserved by this NAT, ::1 is served by way
// of the reserved port: publish first.
//
// Of a Port, ranges and SCTP are refused; the owner is not looked at. A port that
// another program has is os.ErrExist.
func (n *NAT) Proxy(ctx context.Context, port Port) (*Proxy, error) {
	p := &Proxy{host: port.Host, box: port.Box, proto: port.Proto, proxy: proxy{nat: n}}
	err := port.checkProxied()
	if err == nil {
		err = n.exclusive(ctx, func(ctx context.Context, _ nft.Conn) error { return p.start(ctx) })
	}
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("%w: %w", err, os.ErrExist)
	}
	if err != nil {
		return nil, n.fail("nat.Proxy", p.String(), err)
	}
	return p, nil
}

// Close ends the proxy and its connections, and returns when nothing of it is
// left. Closing twice is fine.
func (p *Proxy) Close() error {
	p.once.Do(func() {
		p.nat.mu.Lock()
		delete(p.nat.proxies, p)
		p.nat.mu.Unlock()
		p.cancel()
		p.stop()
	})
	p.wg.Wait()
	return nil
}

// closeProxies closes those that are open.
func (n *NAT) closeProxies() {
	n.mu.Lock()
	all := n.proxies
	n.proxies = nil
	n.mu.Unlock()
	for p := range all {
		p.Close()
	}
}

func (p *Proxy) start(ctx context.Context) error {
	var serve func(context.Context)
	network, addr := p.proto.String()+"4", p.host.String()
	if p.host.Addr().Is6() {
		network = p.proto.String() + "6"
	}
	shared := p.nat.sockets[spot{p.proto, netip.AddrPortFrom(netip.IPv6Unspecified(), p.host.Port())}]
	shares := p.host.Addr() == netip.IPv6Loopback() && shared > 0
	if p.proto == TCP {
		var ln net.Listener
		var err error
		if shares {
			ln, err = shared.listener(p.host.Addr())
		} else {
			ln, err = p.nat.ns.Listen(ctx, network, addr)
		}
		if err != nil {
			return err
		}
		p.stop = closer(ln.(*net.TCPListener), shares)
		serve = func(ctx context.Context) { p.serveTCP(ctx, ln) }
	} else {
		var pc net.PacketConn
		var err error
		if shares {
			pc, err = shared.packets(p.host.Addr())
		} else {
			pc, err = p.nat.ns.ListenPacket(ctx, network, addr)
		}
		if err != nil {
			return err
		}
		conn := pc.(*net.UDPConn)
		if err := tellDestination(conn, p.host.Addr().Is6()); err != nil {
			conn.Close()
			return err
		}
		p.stop = closer(conn, shares)
		serve = func(ctx context.Context) { p.serveUDP(ctx, conn) }
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	p.nat.mu.Lock()
	if p.nat.proxies == nil {
		p.nat.proxies = make(map[*Proxy]bool)
	}
	p.nat.proxies[p] = true
	p.nat.mu.Unlock()
	p.wg.Go(func() { serve(running) })
	return nil
}

// A reserved port's socket is bound to every address and lets nothing in. A proxy
// for one address works on a copy of its descriptor, and opens the socket's filter
// for that address meanwhile.

func (s socket) listener(only netip.Addr) (net.Listener, error) {
	return share(s, only, func(f *os.File) (net.Listener, error) {
		const backlog = 128
		if err := unix.Listen(int(s), backlog); err != nil {
			return nil, os.NewSyscallError("listen", err)
		}
		return net.FileListener(f)
	})
}

func (s socket) packets(only netip.Addr) (net.PacketConn, error) {
	return share(s, only, net.FilePacketConn)
}

// share makes a net package's value of a copy of the socket.
func share[T any](s socket, only netip.Addr, open func(*os.File) (T, error)) (v T, err error) {
	fd, err := unix.FcntlInt(uintptr(s), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return v, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "reserved port")
	defer f.Close() // open makes a copy of its own
	if v, err = open(f); err != nil {
		return v, err
	}
	return v, attach(int(s), passOnly(only))
}

// closer returns what closes a socket; a shared one lets nothing in again first,
// and ends the connections that nobody has accepted.
func closer(c interface {
	io.Closer
	syscall.Conn
}, shared bool) func() {
	return func() {
		if raw, err := c.SyscallConn(); err == nil && shared {
			_ = raw.Control(func(fd uintptr) {
				_ = attach(int(fd), passNothing)
				for {
					conn, _, err := unix.Accept4(int(fd), unix.SOCK_CLOEXEC)
					if err != nil {
						return
					}
					unix.Close(conn)
				}
			})
		}
		c.Close()
	}
}

// passOnly is a socket filter for what is for an IPv6 address: it compares the
// destination in the IP header, four bytes at a time.
func passOnly(a netip.Addr) []unix.SockFilter {
	const netOff, dst = 0xfff00000, 24 // SKF_NET_OFF (linux/filter.h)
	b := a.As16()
	var f []unix.SockFilter
	for i := range 4 {
		f = append(f,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: netOff + dst + uint32(4*i)},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: binary.BigEndian.Uint32(b[4*i:]), Jf: uint8(2*(3-i) + 1)})
	}
	return append(f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 18}, passNothing[0])
}
