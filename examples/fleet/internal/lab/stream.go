//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/netns"
)

// StreamOptions says how a stream sends. The zero value is right for tests.
type StreamOptions struct {
	Spacing time.Duration // between two packets; 0 is 1 ms
	Limit   time.Duration // after which the stream stops by itself; 0 is 2 min, and more than 10 min is 10 min
	Size    int           // of the payload in bytes, at least 8; 0 is 64

	// Patience is how long Stop waits for packets on their way where no packet gets through any more; 0 is 2 s.
	Patience time.Duration
}

// Stats says what became of the packets of a stream. Each packet sent is received, lost, or an overrun.
type Stats struct {
	Sent      int // packets that the kernel took
	Received  int // of them, those that arrived; a packet that arrived twice counts once
	Lost      int // of them, those that did not
	Overrun   int // of them, those that arrived, and were dropped because this program did not read them in time
	Duplicate int // packets that arrived once more
	Refused   int // packets that the kernel did not take; they are not in Sent. See WaitRefused

	RefusedBy error         // the kernel's last refusal: EHOSTUNREACH, ENETUNREACH, ECONNREFUSED, ...
	Gap       time.Duration // the longest time without a packet, from the first that arrived to the stop
	FirstLost int           // number of the first lost packet, from 0; -1 if none is lost
	LastLost  int           // number of the last lost packet; -1
}

func (s Stats) String() string {
	out := fmt.Sprintf("%d sent, %d received, %d lost, longest gap %v", s.Sent, s.Received, s.Lost, s.Gap.Round(time.Millisecond))
	if s.Lost > 0 {
		out += fmt.Sprintf(", lost between packets %d and %d", s.FirstLost, s.LastLost)
	}
	if s.Overrun > 0 {
		out += fmt.Sprintf(", %d not read in time", s.Overrun)
	}
	if s.Refused > 0 {
		out += fmt.Sprintf(", %d refused (%v)", s.Refused, s.RefusedBy)
	}
	return out
}

// A Stream sends numbered UDP packets from one namespace to another.
type Stream struct {
	spacing  time.Duration
	patience time.Duration
	out      net.Conn
	in       *net.UDPConn
	payload  []byte
	stop     chan struct{}
	stopOnce sync.Once
	sent     chan struct{} // closed when the sender has ended
	ended    chan struct{} // closed when the receiver has ended

	mu       sync.Mutex // guards the following fields
	stats    Stats
	taken    []bool        // by number: the kernel took it
	got      []bool        // by number: it arrived
	last     time.Time     // when the last one arrived
	arrival  chan struct{} // closed and replaced as packets arrive
	finished bool          // the end mark arrived
}

// endMark is the number of a packet that says that no further one follows.
const endMark = ^uint64(0)

// receiveBuffer holds what arrives while the receiver does not run: a test machine may be busy for seconds. A normal user gets
// less of it (net.core.rmem_max). What the socket drops it counts itself, so that it does not look like a loss of the network.
const receiveBuffer = 16 << 20

// StartStream begins a stream from a namespace to an address in another one, where it opens a port. It stops by [Stream.Stop],
// when ctx ends, or at the limit. The caller has to stop it.
func StartStream(ctx context.Context, from, to *netns.NS, addr netip.Addr, o StreamOptions) (*Stream, error) {
	if o.Spacing <= 0 {
		o.Spacing = time.Millisecond
	}
	if o.Limit <= 0 {
		o.Limit = 2 * time.Minute
	}
	o.Limit = min(o.Limit, 10*time.Minute)
	if o.Size == 0 {
		o.Size = 64
	}
	o.Size = max(o.Size, 8)
	if o.Patience <= 0 {
		o.Patience = 2 * time.Second
	}
	s := &Stream{
		spacing: o.Spacing, patience: o.Patience, payload: make([]byte, o.Size),
		stop: make(chan struct{}), sent: make(chan struct{}), ended: make(chan struct{}), arrival: make(chan struct{}),
	}
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		err := setOption(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)(network, address, c)
		if errors.Is(err, unix.EPERM) {
			err = setOption(unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)(network, address, c)
		}
		return errors.Join(err, setOption(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)(network, address, c))
	}}
	in, err := to.ListenPacketWith(ctx, lc, "udp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		return nil, err
	}
	s.in = in.(*net.UDPConn)
	// Without a route connecting fails at once.
	if s.out, err = from.DialWith(ctx, hearICMP(addr), "udp", s.in.LocalAddr().String()); err != nil {
		s.in.Close()
		return nil, err
	}
	limit := time.AfterFunc(o.Limit, s.halt)
	undo := context.AfterFunc(ctx, s.halt)
	go func() {
		s.send(int(o.Limit / o.Spacing))
		limit.Stop()
		undo()
	}()
	go s.receive()
	return s, nil
}

// setOption is a Control function that sets a socket's option.
func setOption(level, name, value int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, name, value) }); cerr != nil {
			return cerr
		}
		return os.NewSyscallError("setsockopt", err)
	}
}

// hearICMP dials a UDP socket that reports ICMP errors of any kind: without IP_RECVERR it hears of a closed port alone (ip(7)).
func hearICMP(to netip.Addr) net.Dialer {
	if to.Is6() {
		return net.Dialer{Control: setOption(unix.SOL_IPV6, unix.IPV6_RECVERR, 1)}
	}
	return net.Dialer{Control: setOption(unix.SOL_IP, unix.IP_RECVERR, 1)}
}

func (s *Stream) halt() { s.stopOnce.Do(func() { close(s.stop) }) }

// send sends one packet a tick, and at most so many.
func (s *Stream) send(most int) {
	defer close(s.sent)
	tick := time.NewTicker(s.spacing)
	defer tick.Stop()
	for n := range most {
		binary.BigEndian.PutUint64(s.payload, uint64(n))
		// Before the packet, which may arrive before the call returns.
		s.mu.Lock()
		s.taken, s.got = append(s.taken, true), append(s.got, false)
		s.stats.Sent++
		s.mu.Unlock()
		if err := s.write(); err != nil {
			s.mu.Lock()
			s.taken[n] = false
			s.stats.Sent--
			s.stats.Refused++
			s.stats.RefusedBy = err
			s.mu.Unlock()
		}
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
	}
}

// write sends the payload. An error that an ICMP message caused is of an earlier packet, and takes the place of this one, which
// the kernel does not take then.
func (s *Stream) write() error {
	_, err := s.out.Write(s.payload)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// receive counts until the end mark, or until the socket is closed.
func (s *Stream) receive() {
	defer close(s.ended)
	buf, control := make([]byte, len(s.payload)+1), make([]byte, 128)
	for {
		n, m, _, _, err := s.in.ReadMsgUDPAddrPort(buf, control)
		if err != nil {
			return
		}
		if n != len(s.payload) {
			continue
		}
		number := binary.BigEndian.Uint64(buf)
		s.mu.Lock()
		if dropped, ok := overrun(control[:m]); ok {
			s.stats.Overrun = dropped
		}
		if number == endMark {
			s.finished = true
			s.mu.Unlock()
			return
		}
		s.arrived(number, time.Now())
		s.mu.Unlock()
	}
}

// overrun is how many packets the socket has dropped so far, as the packet that comes next tells (SO_RXQ_OVFL, socket(7)).
func overrun(control []byte) (int, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_RXQ_OVFL && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data)), true
		}
	}
	return 0, false
}

// arrived counts a packet. The mutex is held.
func (s *Stream) arrived(number uint64, now time.Time) {
	if number >= uint64(len(s.got)) {
		return // of nobody here
	}
	if s.got[number] {
		s.stats.Duplicate++
		return
	}
	s.got[number] = true
	s.stats.Received++
	if !s.last.IsZero() {
		s.stats.Gap = max(s.stats.Gap, now.Sub(s.last))
	}
	s.last = now
	close(s.arrival)
	s.arrival = make(chan struct{})
}

// WaitReceived waits until n more packets than now have arrived. The error says what has become of the stream when ctx ends
// first, or when the stream stops.
func (s *Stream) WaitReceived(ctx context.Context, n int) error {
	s.mu.Lock()
	goal := s.stats.Received + n
	s.mu.Unlock()
	for {
		s.mu.Lock()
		received, arrival := s.stats.Received, s.arrival
		s.mu.Unlock()
		if received >= goal {
			return nil
		}
		select {
		case <-arrival:
		case <-ctx.Done():
			return fmt.Errorf("lab: stream: %d of %d more packets arrived: %v: %w", received-goal+n, n, s.Stats(), ctx.Err())
		case <-s.ended:
			return fmt.Errorf("lab: stream: it has stopped before %d more packets arrived: %v", n, s.Stats())
		}
	}
}

// WaitRefused waits until the kernel has refused n more packets than now: the route says `unreachable`, say. Where another
// host sends the refusals, by ICMP, they come about once a second, and each takes the place of one packet: net.ipv4.icmp_ratelimit.
// The packets between them are lost.
func (s *Stream) WaitRefused(ctx context.Context, n int) error {
	goal := s.Stats().Refused + n
	return poll(ctx, func() error {
		if now := s.Stats(); now.Refused < goal {
			return fmt.Errorf("lab: stream: %d more packets were not refused: %v", goal-now.Refused, now)
		}
		return nil
	})
}

// Stats says how the stream is doing. A packet on its way counts as lost, so Lost is exact after Stop alone.
func (s *Stream) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.FirstLost, out.LastLost = -1, -1
	for n, taken := range s.taken {
		if !taken || s.got[n] {
			continue
		}
		out.Lost++
		out.LastLost = n
		if out.FirstLost < 0 {
			out.FirstLost = n
		}
	}
	out.Lost = max(0, out.Lost-out.Overrun)
	return out
}

// Stop ends the stream and says what became of its packets. It sends an end mark until that arrives, behind all other
// packets. If no packet gets through it gives up after StreamOptions.Patience: what has not arrived is lost then. Stopping twice gives
// the same answer. The error is that of a ctx that ended before; the stream has stopped then, too.
func (s *Stream) Stop(ctx context.Context) (Stats, error) {
	s.halt()
	<-s.sent
	binary.BigEndian.PutUint64(s.payload, endMark)
	stopped := time.Now()
	giveUp := time.NewTimer(s.patience)
	defer giveUp.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var err error
	for done := false; !done; {
		_ = s.write() // an error is an answer like none
		select {
		case <-s.ended:
			done = true
		case <-tick.C:
		case <-giveUp.C:
			done = true
		case <-ctx.Done():
			err, done = ctx.Err(), true
		}
	}
	s.out.Close()
	s.in.Close()
	<-s.ended
	s.mu.Lock()
	if !s.last.IsZero() && stopped.After(s.last) {
		s.stats.Gap = max(s.stats.Gap, stopped.Sub(s.last))
		s.last = stopped
	}
	s.mu.Unlock()
	return s.Stats(), err
}
