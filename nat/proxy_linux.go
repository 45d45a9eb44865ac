package nat

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"

	"github.com/boxwire/boxwire/internal/portlock"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/internal/relay"
	"golang.org/x/sys/unix"
)

// proxy is the part of a Proxy that is Linux's.
type proxy struct {
	nat   *NAT
	relay *relay.Relay
}

// Proxy relays connections from Host to Box in this process. It is for the two cases that the
// kernel cannot translate: connections to ::1 on the host itself, and IPv6 visitors of a box with
// IPv4 only. So Host may be ::1, and of another family than Box. Publish everything else: with a
// proxy, the box sees the host's address for the visitor's, each packet costs two more system
// calls, and connections end with the process.
//
// The proxy listens in the namespace of the NAT until [Proxy.Close] or [NAT.Close]. The context
// bounds only the start. A proxy on [::]:8080 accepts no IPv4. If this NAT reserves the same port
// on [::], the proxy on ::1 shares the reserved port; so publish first.
//
// Errors: os.ErrExist for a port that another program has; os.ErrInvalid for bad input, ranges and
// SCTP. The owner is ignored.
func (n *NAT) Proxy(ctx context.Context, port Port) (*Proxy, error) {
	p := &Proxy{host: port.Host, box: port.Box, proto: port.Proto, proxy: proxy{nat: n}}
	err := port.checkProxied()
	if err == nil {
		err = p.start(ctx)
	}
	if errors.Is(err, unix.EADDRINUSE) {
		err = refuse.As(os.ErrExist, "%w", err)
	}
	if err != nil {
		return nil, n.fail("nat.Proxy", p.String(), err)
	}
	return p, nil
}

// Close closes the proxy and its connections, and waits until all its goroutines have ended.
// Closing twice is fine.
func (p *Proxy) Close() error {
	p.nat.mu.Lock()
	delete(p.nat.proxies, p)
	p.nat.mu.Unlock()
	p.relay.Close()
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
	_, err := p.nat.lock(ctx)
	if err != nil {
		return err
	}
	defer p.nat.unlock()
	if p.proto == TCP {
		var ln net.Listener
		if ln, err = p.listen(ctx); err == nil {
			p.relay = relay.TCP(ctx, ln, p.dial)
		}
	} else {
		var pc relay.PacketConn
		if pc, err = p.listenPacket(ctx); err == nil {
			p.relay, err = relay.UDP(ctx, pc, p.host.Addr().Is6(), p.dial)
		}
	}
	if err != nil {
		return err
	}
	p.nat.mu.Lock()
	defer p.nat.mu.Unlock()
	if p.nat.proxies == nil {
		p.nat.proxies = make(map[*Proxy]bool)
	}
	p.nat.proxies[p] = true
	return nil
}

func (p *Proxy) dial(ctx context.Context) (net.Conn, error) {
	return p.nat.ns.Dial(ctx, p.proto.String(), p.box.String())
}

func (p *Proxy) listen(ctx context.Context) (net.Listener, error) {
	if fd, ok := p.reserved(); ok {
		return relay.Listen(fd, p.host.Addr(), p.nat.ports.Mark())
	}
	return p.nat.ns.Listen(ctx, p.network(), p.host.String())
}

func (p *Proxy) listenPacket(ctx context.Context) (relay.PacketConn, error) {
	if fd, ok := p.reserved(); ok {
		return relay.ListenPacket(fd, p.host.Addr(), p.nat.ports.Mark())
	}
	pc, err := p.nat.ns.ListenPacket(ctx, p.network(), p.host.String())
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// network is the network's name for package net, of one family.
func (p *Proxy) network() string {
	if p.host.Addr().Is6() {
		return p.proto.String() + "6"
	}
	return p.proto.String() + "4"
}

// reserved returns the socket that reserves the port on [::], if there is one and the
// proxy is for ::1.
func (p *Proxy) reserved() (fd int, ok bool) {
	fd, ok = p.nat.ports.Socket(portlock.HostPort{Proto: uint8(p.proto), Host: netip.AddrPortFrom(netip.IPv6Unspecified(), p.host.Port())})
	return fd, ok && p.host.Addr() == netip.IPv6Loopback()
}
