package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A UDP client that sends nothing for so long is forgotten, and there are at most
	// so many.
	idleTimeout = 2 * time.Minute
	maxClients  = 1024

	maxDatagram = 1 << 16
)

// PacketConn is a *net.UDPConn, or what [ListenPacket] returns.
type PacketConn interface {
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
	WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
	SyscallConn() (syscall.RawConn, error)
	Close() error
}

// UDP starts a relay for the datagrams that the socket receives, of IPv6 or IPv4. The
// relay closes the socket, also beside an error. Of ctx only the values count, not the
// end.
func UDP(ctx context.Context, pc PacketConn, v6 bool, dial Dial) (*Relay, error) {
	if err := reportDestination(pc, v6); err != nil {
		pc.Close()
		return nil, err
	}
	return start(ctx, dial, pc, func(ctx context.Context, r *Relay) {
		s := server{relay: r, pc: pc, flows: make(map[client]*flow)}
		defer onDone(ctx, s.closeFlows)()
		s.serve(ctx)
	}), nil
}

// server is a UDP relay at work.
type server struct {
	relay *Relay
	pc    PacketConn

	mu    sync.Mutex // guards flows
	flows map[client]*flow
}

// client is the address of a client, and as a control message the address of the host
// that it sends to.
type client struct {
	from netip.AddrPort
	to   string
}

// flow is the target's side of a client.
type flow struct {
	conn net.Conn
	last atomic.Int64 // when the client sent, in nanoseconds
}

// serve sends the clients' datagrams to the target until the socket is closed.
func (s *server) serve(ctx context.Context) {
	buf, oob := make([]byte, maxDatagram), make([]byte, 128)
	for {
		n, noob, _, from, err := s.pc.ReadMsgUDPAddrPort(buf, oob)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an earlier answer was refused
		}
		f := s.flow(ctx, client{from, string(oob[:noob])})
		if f == nil {
			continue
		}
		f.last.Store(time.Now().UnixNano())
		_, _ = f.conn.Write(buf[:n]) // UDP loses what the target refuses
	}
}

// flow returns the flow of a client, and begins one for a new client. It is nil where
// there are too many, or the target cannot be dialled.
func (s *server) flow(ctx context.Context, c client) *flow {
	s.mu.Lock()
	f, full := s.flows[c], len(s.flows) >= maxClients
	s.mu.Unlock()
	if f != nil || full {
		return f
	}
	conn, err := s.relay.dial(ctx)
	if err != nil {
		return nil
	}
	f = &flow{conn: conn}
	s.mu.Lock()
	s.flows[c] = f
	closed := ctx.Err() != nil
	s.mu.Unlock()
	if closed {
		conn.Close()
		return nil
	}
	s.relay.wg.Go(func() {
		f.answer(s.pc, c)
		s.mu.Lock()
		delete(s.flows, c)
		s.mu.Unlock()
		f.conn.Close()
	})
	return f
}

func (s *server) closeFlows() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flows {
		f.conn.Close()
	}
}

// answer sends the target's datagrams to the client, until both are idle.
func (f *flow) answer(pc PacketConn, c client) {
	buf := make([]byte, maxDatagram)
	oob := answerFrom([]byte(c.to))
	for {
		f.conn.SetReadDeadline(time.Now().Add(idleTimeout))
		n, err := f.conn.Read(buf)
		var timeout net.Error
		switch {
		case err == nil:
			_, _, _ = pc.WriteMsgUDPAddrPort(buf[:n], oob, c.from)
		case errors.As(err, &timeout) && timeout.Timeout():
			if time.Since(time.Unix(0, f.last.Load())) >= idleTimeout {
				return
			}
		case !errors.Is(err, unix.ECONNREFUSED):
			return
		}
	}
}

// reportDestination makes the socket report the address that a datagram was for, so
// that the answer comes from there.
func reportDestination(pc PacketConn, v6 bool) error {
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
// address that it was for becomes the source, and the route chooses the link.
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
