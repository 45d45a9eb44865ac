package netpolicy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// serve answers at an end, on all ports.
func (c *cluster) serve(e *end) {
	c.Helper()
	for _, port := range ports {
		ln, err := e.Listen(c.Context(), "tcp", fmt.Sprint(":", port))
		c.must(err)
		c.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		conn, err := e.ListenPacket(c.Context(), "udp", fmt.Sprint(":", port))
		c.must(err)
		c.Cleanup(func() { conn.Close() })
		go func() {
			b := make([]byte, 16)
			for {
				n, from, err := conn.ReadFrom(b)
				if err != nil {
					return
				}
				conn.WriteTo(b[:n], from)
			}
		}()
	}
	for _, a := range e.addrs {
		s, err := newSCTP(c.Context(), e, a)
		c.must(err)
		c.Cleanup(s.close)
		e.sctp = append(e.sctp, s)
	}
}

// connect reports whether there is an answer: nil, or what came in its place.
func (e *end) connect(ctx context.Context, s *sctp, to netip.AddrPort, proto corev1.Protocol) error {
	switch proto {
	case corev1.ProtocolSCTP:
		return s.connect(ctx, to)
	case corev1.ProtocolUDP:
		conn, err := e.Dial(ctx, "udp", to.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		conn.SetDeadline(deadline)
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	conn, err := e.Dial(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	conn.(*net.TCPConn).SetLinger(0)
	return conn.Close()
}

// An sctp is as much of SCTP (RFC 9260) as it takes to begin an association and to answer one that
// begins, by raw sockets: many kernels have no SCTP, and the firewall tracks it all the same.
type sctp struct {
	conn, icmp net.PacketConn
	addr       netip.Addr
	port       atomic.Uint32
	waiting    sync.Map // a chan error by flow
	ended      sync.WaitGroup
}

// A flow is an association that begins.
type flow struct {
	to   netip.AddrPort
	from uint16
}

var errDenied = errors.New("administratively prohibited")

const initChunk, initAckChunk, initSize = 1, 2, 20

func newSCTP(ctx context.Context, e *end, a netip.Addr) (*sctp, error) {
	s := &sctp{addr: a}
	s.port.Store(20000)
	ip, icmp := "ip6:132", "ip6:ipv6-icmp"
	if a.Is4() {
		ip, icmp = "ip4:132", "ip4:icmp"
	}
	var err error
	if s.conn, err = e.ListenPacket(ctx, ip, a.String()); err != nil {
		return nil, err
	}
	if s.icmp, err = e.ListenPacket(ctx, icmp, a.String()); err != nil {
		s.conn.Close()
		return nil, err
	}
	s.ended.Go(func() { read(s.conn, s.packet) })
	s.ended.Go(func() { read(s.icmp, s.prohibited) })
	return s, nil
}

func (s *sctp) close() {
	s.conn.Close()
	s.icmp.Close()
	s.ended.Wait()
}

// read reads packets, without the header of IP, until the end.
func read(conn net.PacketConn, packet func(from netip.Addr, b []byte)) {
	b := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		a, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		packet(a.Unmap(), b[:n])
	}
}

// packet answers an INIT on a port that is served, and takes every other packet for the answer to
// an INIT of its own.
func (s *sctp) packet(from netip.Addr, b []byte) {
	if len(b) < 16 {
		return
	}
	src, dst := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	switch {
	case b[12] == initChunk && len(b) >= 12+initSize:
		if dst == uint16(ports[0]) || dst == uint16(ports[1]) {
			s.send(netip.AddrPortFrom(from, src), dst, binary.BigEndian.Uint32(b[16:]), initAckChunk)
		}
	default:
		s.answer(flow{netip.AddrPortFrom(from, src), dst}, nil)
	}
}

// prohibited reads an ICMP error and the packet that it is about.
func (s *sctp) prohibited(_ netip.Addr, b []byte) {
	const unreachable4, unreachable6, header = 3, 1, 8
	if len(b) < header+40+4 && !s.addr.Is4() || len(b) < header+20+4 {
		return
	}
	var to netip.Addr
	packet := b[header:]
	switch {
	case s.addr.Is4() && b[0] == unreachable4 && packet[9] == 132:
		to = netip.AddrFrom4([4]byte(packet[16:20]))
		packet = packet[min(int(packet[0]&15)*4, len(packet)-4):]
	case !s.addr.Is4() && b[0] == unreachable6 && packet[6] == 132:
		to = netip.AddrFrom16([16]byte(packet[24:40]))
		packet = packet[40:]
	default:
		return
	}
	src, dst := binary.BigEndian.Uint16(packet), binary.BigEndian.Uint16(packet[2:])
	s.answer(flow{netip.AddrPortFrom(to, dst), src}, errDenied)
}

func (s *sctp) answer(f flow, err error) {
	if ch, ok := s.waiting.LoadAndDelete(f); ok {
		ch.(chan error) <- err
	}
}

// connect begins an association and waits for an answer. It is sent again as RFC 9260 has it.
func (s *sctp) connect(ctx context.Context, to netip.AddrPort) error {
	f := flow{to, uint16(s.port.Add(1))}
	answer := make(chan error, 1)
	s.waiting.Store(f, answer)
	defer s.waiting.Delete(f)
	for {
		if err := s.send(to, f.from, 0, initChunk); err != nil {
			return err
		}
		select {
		case err := <-answer:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(3 * time.Second):
		}
	}
}

// send sends an INIT or an INIT ACK.
func (s *sctp) send(to netip.AddrPort, from uint16, tag uint32, chunk byte) error {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint32(b, tag)
	b = append(b, 0, 0, 0, 0, chunk, 0, 0, initSize)
	for _, field := range []uint32{0x5a5a5a5a, 65535, 1<<16 | 1, 1} { // tag, window, streams, TSN
		b = binary.BigEndian.AppendUint32(b, field)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	_, err := s.conn.WriteTo(b, &net.IPAddr{IP: to.Addr().AsSlice()})
	return err
}
