package nat

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout = 30 * time.Second

	// Of UDP, a visitor who was silent for so long is forgotten, and there are at
	// most so many.
	idleTimeout = 2 * time.Minute
	maxVisitors = 1024

	maxDatagram = 1 << 16
)

// serveTCP accepts visitors until the context ends.
func (p *Proxy) serveTCP(ctx context.Context, ln net.Listener) {
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			p.wg.Go(func() { p.relay(ctx, c.(*net.TCPConn)) })
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		default: // too many open files, or the visitor is gone already
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}
}

// relay copies both ways until both ends have closed theirs. net.TCPConn copies
// from one to another within the kernel (splice(2)).
func (p *Proxy) relay(ctx context.Context, visitor *net.TCPConn) {
	defer visitor.Close()
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := p.nat.ns.Dial(dctx, "tcp", p.box.String())
	if err != nil {
		visitor.SetLinger(0) // refused there, reset here
		return
	}
	box := conn.(*net.TCPConn)
	defer box.Close()
	defer onDone(ctx, func() {
		visitor.Close()
		box.Close()
	})()
	var wg sync.WaitGroup
	for _, way := range []struct{ from, to *net.TCPConn }{{visitor, box}, {box, visitor}} {
		wg.Go(func() {
			if _, err := io.Copy(way.to, way.from); err == nil {
				way.to.CloseWrite()
				return
			}
			for _, c := range []*net.TCPConn{visitor, box} {
				c.SetLinger(0)
				c.Close()
			}
		})
	}
	wg.Wait()
}

// onDone calls fn when the context ends, unless stop is called first. stop waits for
// it, so that nothing runs on.
func onDone(ctx context.Context, fn func()) (stop func()) {
	over := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(over)
		fn()
	})
	return func() {
		if !cancel() {
			<-over
		}
	}
}

// caller is a visitor of UDP: an address, and the address of the host that it
// sends to, as control message.
type caller struct {
	from netip.AddrPort
	to   string
}

// visit is the box's side of a caller.
type visit struct {
	conn net.Conn
	last atomic.Int64 // when the caller sent, in nanoseconds
}

// serveUDP hands on datagrams until the socket is closed.
func (p *Proxy) serveUDP(ctx context.Context, pc *net.UDPConn) {
	var mu sync.Mutex // guards visits
	visits := make(map[caller]*visit)
	defer onDone(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		for _, v := range visits {
			v.conn.Close()
		}
	})()
	buf, oob := make([]byte, maxDatagram), make([]byte, 128)
	for {
		n, noob, _, from, err := pc.ReadMsgUDPAddrPort(buf, oob)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an earlier answer was refused
		}
		who := caller{from, string(oob[:noob])}
		mu.Lock()
		v, full := visits[who], len(visits) >= maxVisitors
		mu.Unlock()
		if v == nil {
			if full {
				continue
			}
			conn, err := p.nat.ns.Dial(ctx, "udp", p.box.String())
			if err != nil {
				continue
			}
			v = &visit{conn: conn}
			mu.Lock()
			visits[who] = v
			gone := ctx.Err() != nil
			mu.Unlock()
			if gone {
				conn.Close()
				return
			}
			p.wg.Go(func() {
				v.answer(pc, who)
				mu.Lock()
				delete(visits, who)
				mu.Unlock()
				v.conn.Close()
			})
		}
		v.last.Store(time.Now().UnixNano())
		_, _ = v.conn.Write(buf[:n]) // a box that refuses is UDP's way
	}
}

// answer hands back what the box sends, until both are silent.
func (v *visit) answer(pc *net.UDPConn, who caller) {
	buf := make([]byte, maxDatagram)
	oob := answerFrom([]byte(who.to))
	for {
		v.conn.SetReadDeadline(time.Now().Add(idleTimeout))
		n, err := v.conn.Read(buf)
		var timeout net.Error
		switch {
		case err == nil:
			_, _, _ = pc.WriteMsgUDPAddrPort(buf[:n], oob, who.from)
		case errors.As(err, &timeout) && timeout.Timeout():
			if time.Since(time.Unix(0, v.last.Load())) >= idleTimeout {
				return
			}
		case !errors.Is(err, unix.ECONNREFUSED):
			return
		}
	}
}

// tellDestination makes the socket tell the address that a datagram was for, so
// that the answer comes from there.
func tellDestination(pc *net.UDPConn, v6 bool) error {
	raw, err := pc.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		if v6 {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_PKTINFO, 1)
		}
	})
	return errors.Join(err, cerr)
}

// answerFrom turns the control message of a datagram into that of its answer: the
// address that it was for is the source, and the link is left to the routes.
func answerFrom(oob []byte) []byte {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			var info unix.Inet6Pktinfo
			copy(info.Addr[:], m.Data)
			return unix.PktInfo6(&info)
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			var info unix.Inet4Pktinfo
			copy(info.Spec_dst[:], m.Data[4:]) // struct in_pktinfo: link, local address, destination
			return unix.PktInfo4(&info)
		}
	}
	return nil
}
