//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// Self is what a responder says of its node.
type Self struct {
	Host
	ID         state.ID
	Generation uint64

	// Allow says whose requests are answered, by their source on the underlay or in the overlay; nil is everybody.
	Allow func(netip.Addr) bool

	now func() time.Time // of tests; nil is time.Now
}

const (
	rate     = 500 // requests a second that are answered, and as many at once
	dear     = 50  // how many others a request counts for that makes the kernel read its tables
	maxWatch = 5 * time.Second
)

// Responder answers the probes of other nodes, see the package's text for what it does and does not do.
type Responder struct {
	self    Self
	conns   []func(ctx context.Context) error
	close   []func() error
	bucket  bucket
	mu      sync.Mutex
	watch   *watch // the count that goes on, guarded by mu
	taken   bool   // its counts were asked for, guarded by mu
	expires *time.Timer
	Ignored atomic.Uint64 // requests that were not answered: malformed, not allowed, or too many
}

// Listen opens the responder's sockets, for both families if the namespace has both. A port that is taken is syscall.EADDRINUSE.
func Listen(ctx context.Context, self Self) (*Responder, error) {
	if self.now == nil {
		self.now = time.Now
	}
	r := &Responder{self: self}
	for _, f := range []netns.Family{netns.IPv4, netns.IPv6} {
		if err := r.listen(ctx, f); err != nil {
			if f == netns.IPv6 && errors.Is(err, syscall.EAFNOSUPPORT) {
				continue // the kernel has no IPv6
			}
			return nil, errors.Join(fmt.Errorf("probe: %w", err), r.Close())
		}
	}
	return r, nil
}

func (r *Responder) listen(ctx context.Context, f netns.Family) error {
	network := "udp4"
	if f == netns.IPv6 {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: dontFragment}
	pc, err := r.self.NS.ListenPacketWith(ctx, lc, network, fmt.Sprintf(":%d", r.self.ask()))
	if err != nil {
		return err
	}
	r.close = append(r.close, pc.Close)
	// A reply leaves by the address that was asked, which the kernel would otherwise choose by the route.
	if f == netns.IPv4 {
		c := ipv4.NewPacketConn(pc)
		if err := c.SetControlMessage(ipv4.FlagDst, true); err != nil {
			return err
		}
		r.conns = append(r.conns, func(ctx context.Context) error {
			return r.serve(ctx, pc, func(b []byte) (int, net.IP, net.Addr, error) {
				n, cm, from, err := c.ReadFrom(b)
				if cm == nil {
					return n, nil, from, err
				}
				return n, cm.Dst, from, err
			}, func(b []byte, src net.IP, to net.Addr) error {
				_, err := c.WriteTo(b, &ipv4.ControlMessage{Src: src}, to)
				return err
			})
		})
		return nil
	}
	c := ipv6.NewPacketConn(pc)
	if err := c.SetControlMessage(ipv6.FlagDst, true); err != nil {
		return err
	}
	r.conns = append(r.conns, func(ctx context.Context) error {
		return r.serve(ctx, pc, func(b []byte) (int, net.IP, net.Addr, error) {
			n, cm, from, err := c.ReadFrom(b)
			if cm == nil {
				return n, nil, from, err
			}
			return n, cm.Dst, from, err
		}, func(b []byte, src net.IP, to net.Addr) error {
			_, err := c.WriteTo(b, &ipv6.ControlMessage{Src: src}, to)
			return err
		})
	})
	return nil
}

// Serve answers until ctx is done, and then closes the responder and returns nil.
func (r *Responder) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	errs := make(chan error, len(r.conns))
	for _, serve := range r.conns {
		go func() { errs <- serve(ctx) }()
	}
	var err error
	for range r.conns {
		if e := <-errs; err == nil && e != nil {
			err = e
			r.Close()
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Close closes the sockets. Closing twice is fine.
func (r *Responder) Close() error {
	for _, c := range r.close {
		if err := c(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.endWatch()
	return nil
}

func (r *Responder) serve(ctx context.Context, pc net.PacketConn, read func([]byte) (int, net.IP, net.Addr, error), write func([]byte, net.IP, net.Addr) error) error {
	buf := make([]byte, maxMessage)
	for {
		n, dst, from, err := read(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			var errno syscall.Errno
			if errors.As(err, &errno) && errno.Temporary() {
				continue
			}
			return fmt.Errorf("probe: %w", err)
		}
		source := addrOf(from)
		m, ok := decode(buf[:n])
		if !ok || m.kind&reply != 0 || !r.bucket.take(r.self.now(), cost(m.kind)) || r.self.Allow != nil && !r.self.Allow(source) {
			r.Ignored.Add(1)
			continue
		}
		answer, ok := r.answer(ctx, m, n, source)
		if !ok {
			r.Ignored.Add(1)
			continue
		}
		if err := write(answer, dst, from); errors.Is(err, syscall.EMSGSIZE) {
			m.kind |= reply
			m.status = statusTooBig
			_ = write(m.encode(0), dst, from)
		}
	}
}

// answer makes the reply to a request of n bytes, which has at most n bytes.
func (r *Responder) answer(ctx context.Context, m message, n int, from netip.Addr) ([]byte, bool) {
	a := message{kind: m.kind | reply, nonce: m.nonce}
	length := 0
	switch m.kind {
	case kindHello:
		a.id, a.generation, a.clock = r.self.ID, r.self.Generation, r.self.now()
	case kindWay:
		if !m.overlay.IsValid() {
			return nil, false
		}
		w, err := r.self.wayTo(ctx, m.overlay, nil)
		if err != nil {
			a.status = statusFailed
		}
		a.way = w.cause
	case kindSize:
		a.length = uint32(n)
	case kindMirror:
		a.length, length = uint32(n), n
	case kindWatch:
		a.status = r.startWatch(ctx, m.marker, from)
	case kindCounts:
		a.status, a.counts = r.takeCounts(m.marker)
	default:
		return nil, false
	}
	return a.encode(length), true
}

// startWatch begins a count. One at a time is enough, so a stranger cannot make the host count much.
func (r *Responder) startWatch(ctx context.Context, m marker, from netip.Addr) status {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.watch != nil && r.watch.marker == m:
		return statusOK // the request was repeated, because the reply was lost
	case r.watch != nil && !r.taken:
		return statusBusy
	}
	r.endWatch()
	w, err := r.self.openWatch(ctx, m, from)
	if err != nil {
		return statusFailed
	}
	r.watch, r.taken = w, false
	r.expires = time.AfterFunc(maxWatch, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.watch == w {
			r.endWatch()
		}
	})
	return statusOK
}

func (r *Responder) takeCounts(m marker) (status, counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watch == nil || r.watch.marker != m {
		return statusFailed, counts{}
	}
	r.taken = true // the next one may begin; until then this one's counts can be asked for again
	n, err := r.watch.counts()
	if err != nil {
		return statusFailed, counts{}
	}
	return statusOK, n
}

// endWatch ends the count; mu is held.
func (r *Responder) endWatch() {
	if r.watch != nil {
		r.watch.file.Close()
		r.expires.Stop()
		r.watch = nil
	}
}

// openWatch counts on the host's links; the tunnel link may be missing.
func (h Host) openWatch(ctx context.Context, m marker, peer netip.Addr) (*watch, error) {
	index, err := h.tunnelIndex(ctx)
	if err != nil {
		return nil, err
	}
	if !h.Hidden {
		peer = netip.Addr{}
	}
	return openWatch(ctx, h.NS, index, h.Port, m, peer)
}

// dontFragment makes the kernel set the DF bit, and ignore what path MTU it has learned (IP_PMTUDISC_PROBE, ip(7)).
func dontFragment(network, _ string, c syscall.RawConn) error {
	var serr error
	err := c.Control(func(fd uintptr) {
		if network == "udp4" {
			serr = os.NewSyscallError("setsockopt IP_MTU_DISCOVER", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE))
			return
		}
		serr = os.NewSyscallError("setsockopt IPV6_MTU_DISCOVER", unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE))
	})
	return errors.Join(err, serr)
}

func cost(k kind) float64 {
	if k == kindWay || k == kindWatch {
		return dear
	}
	return 1
}

// bucket limits the requests of all together. It is safe for concurrent use.
type bucket struct {
	mu    sync.Mutex
	level float64 // requests that were answered lately
	at    time.Time
}

func (b *bucket) take(now time.Time, cost float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := now.Sub(b.at); passed > 0 {
		b.level = max(0, b.level-passed.Seconds()*rate)
	}
	b.at = now
	if b.level+cost > rate {
		return false
	}
	b.level += cost
	return true
}
