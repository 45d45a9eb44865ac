//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// sizer sends messages of given sizes with DF to a responder. Its socket is not connected: the kernel would report an ICMP error
// about one size in place of the reply to another one.
type sizer struct {
	conn   net.PacketConn
	to     net.Addr
	header int // of IP and UDP
	wait   time.Duration
}

func newSizer(ctx context.Context, ns *netns.NS, to netip.AddrPort, rtt time.Duration) (*sizer, error) {
	s := &sizer{to: net.UDPAddrFromAddrPort(to), header: 28, wait: min(max(100*time.Millisecond, 4*rtt), time.Second)}
	network := "udp4"
	if to.Addr().Is6() {
		network, s.header = "udp6", 48
	}
	var err error
	s.conn, err = ns.ListenPacketWith(ctx, net.ListenConfig{Control: dontFragment}, network, ":0")
	return s, err
}

// passes sends packets of the sizes, each up to three times, and returns those sizes that were answered. A size is that of the
// whole IP packet. own is the smallest that this host's link does not take, 0 if it takes all; peer that which the responder's own
// link does not take for the answer.
func (s *sizer) passes(ctx context.Context, k kind, sizes ...int) (passed map[int]bool, own, peer int, err error) {
	stop := context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	r := round{sizer: s, kind: k, at: map[marker]int{}, passed: map[int]bool{}, refused: map[int]bool{}, pending: len(sizes)}
	for range askTries {
		r.send(sizes)
		s.conn.SetReadDeadline(time.Now().Add(s.wait))
		for r.pending > 0 && ctx.Err() == nil && r.receive() {
		}
		if r.pending == 0 || ctx.Err() != nil {
			break
		}
	}
	return r.passed, r.own, r.peer, ctx.Err()
}

// round is one call of passes.
type round struct {
	*sizer
	kind            kind
	at              map[marker]int // the sizes that were sent
	passed, refused map[int]bool
	pending         int // sizes of which nothing is known yet
	own, peer       int // as passes returns them
}

// send sends a packet of each size of which nothing is known.
func (r *round) send(sizes []int) {
	for _, size := range sizes {
		if r.passed[size] || r.refused[size] {
			continue
		}
		m := message{kind: r.kind, nonce: newMarker()}
		r.at[m.nonce] = size
		if _, err := r.conn.WriteTo(m.encode(size-r.header), r.to); errors.Is(err, syscall.EMSGSIZE) {
			r.own = smaller(r.own, size)
			r.refused[size] = true
			r.pending--
		}
	}
}

// receive takes in one message, and reports whether there was one.
func (r *round) receive() bool {
	buf := make([]byte, maxMessage)
	n, _, err := r.conn.ReadFrom(buf)
	if err != nil {
		return false
	}
	m, ok := decode(buf[:n])
	size, mine := r.at[m.nonce]
	if !ok || !mine || m.kind != r.kind|reply || r.passed[size] || r.refused[size] {
		return true
	}
	r.pending--
	if m.status == statusTooBig {
		r.peer, r.refused[size] = smaller(r.peer, size), true
		return true
	}
	r.passed[size] = int(m.length) == size-r.header && (r.kind == kindSize || n == size-r.header)
	return true
}

// smaller is the smaller of two sizes, of which 0 is none.
func smaller(a, b int) int {
	if a == 0 || b < a {
		return b
	}
	return a
}

// largest finds the largest size that passes both ways, between one that does and one that does not. Each round divides what is
// between them by nine.
func (s *sizer) largest(ctx context.Context, passes, fails int) (int, error) {
	for fails-passes > 1 {
		var sizes []int
		for i := 1; i <= 8; i++ {
			if size := passes + (fails-passes)*i/9; size > passes && (len(sizes) == 0 || size > sizes[len(sizes)-1]) {
				sizes = append(sizes, size)
			}
		}
		passed, _, _, err := s.passes(ctx, kindMirror, sizes...)
		if err != nil {
			return 0, err
		}
		low := passes
		for _, size := range sizes {
			if passed[size] {
				low = size
			}
		}
		for _, size := range sizes {
			if size > low {
				fails = size
				break
			}
		}
		passes = low
	}
	return passes, nil
}

// checkMTU reports whether packets of the full size pass both ways.
func (e *explainer) checkMTU(ctx context.Context, rtt time.Duration) error {
	mtu, text := e.peer.MTU, fmt.Sprintf("the peer's MTU is %d", e.peer.MTU)
	if e.self.MTU > 0 {
		mtu, text = min(mtu, e.self.MTU), fmt.Sprintf("this node's MTU is %d and the peer's %d", e.self.MTU, e.peer.MTU)
	}
	s, err := newSizer(ctx, e.NS, netip.AddrPortFrom(e.report.Endpoint, e.ask()), rtt)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	mtu = min(mtu, maxMessage+28)
	passed, own, there, err := s.passes(ctx, kindMirror, mtu)
	if err != nil {
		return err
	}
	if passed[mtu] {
		e.report.fact("packets of %d bytes pass both ways with DF", mtu)
		return nil
	}
	to, side, direction := e.report.Endpoint, Between, "on the way there"
	switch {
	case own > 0:
		side, direction = Here, "this host's link refuses them"
	case there > 0:
		side, direction = There, "the peer's own link refuses the answers"
	default:
		there, _, _, err := s.passes(ctx, kindSize, mtu)
		if err != nil {
			return err
		}
		if there[mtu] {
			direction = "on the way back"
		}
	}
	low := messageLen + s.header
	if passed, _, _, err = s.passes(ctx, kindMirror, low); err != nil {
		return err
	}
	if !passed[low] {
		e.report.fact("the largest packet that passes could not be measured: small ones are lost, too")
		return nil
	}
	largest, err := s.largest(ctx, low, mtu)
	if err != nil {
		return err
	}
	e.report.find(MTUTooBig, side,
		fmt.Sprintf("Let what is in between pass packets of %d bytes, or set the MTU of both nodes' underlay to %d and restart the agents", mtu, largest),
		"with DF, packets of %d bytes to %v are lost (%s), and %d bytes pass; %s", mtu, to, direction, largest, text)
	return nil
}
