//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/boxwire/boxwire/netns"
)

const (
	askTries     = 4
	askTriesLong = 12 // of what makes the peer ask its kernel, which may be busy with its links
	askWait      = 300 * time.Millisecond
)

// asker asks a responder. Its socket is connected, so a port without a program is syscall.ECONNREFUSED.
type asker struct {
	conn net.Conn
	rtt  time.Duration // of the last exchange
}

// newAsker opens the socket. A zero from leaves the source to the kernel.
func newAsker(ctx context.Context, ns *netns.NS, from netip.Addr, to netip.AddrPort) (*asker, error) {
	d := net.Dialer{Control: dontFragment}
	if from.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	network := "udp4"
	if to.Addr().Is6() {
		network = "udp6"
	}
	c, err := ns.DialWith(ctx, d, network, to.String())
	if err != nil {
		return nil, err
	}
	return &asker{conn: c}, nil
}

// ask sends a request until a reply comes, and gives up after askTries. Without one the error is ErrNoAnswer, and the last that the
// socket reported. sent is when the request was sent that was answered.
func (a *asker) ask(ctx context.Context, m message) (answer message, sent time.Time, err error) {
	stop := context.AfterFunc(ctx, func() { a.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if m.nonce == (marker{}) {
		m.nonce = newMarker()
	}
	buf := make([]byte, maxMessage)
	err = ErrNoAnswer
	tries := askTries
	if m.kind == kindWay || m.kind == kindWatch {
		tries = askTriesLong
	}
	for range tries {
		sent = time.Now()
		a.conn.SetDeadline(sent.Add(askWait))
		if ctx.Err() != nil {
			return message{}, sent, ctx.Err()
		}
		if _, werr := a.conn.Write(m.encode(0)); werr != nil {
			err = fmt.Errorf("%w: %w", ErrNoAnswer, werr)
		}
		for {
			n, rerr := a.conn.Read(buf)
			if errors.Is(rerr, os.ErrDeadlineExceeded) {
				break
			}
			if rerr != nil { // what ICMP said about the request
				err = fmt.Errorf("%w: %w", ErrNoAnswer, rerr)
				continue
			}
			if r, ok := decode(buf[:n]); ok && r.kind == m.kind|reply && r.nonce == m.nonce {
				a.rtt = time.Since(sent)
				return r, sent, nil
			}
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return message{}, sent, fmt.Errorf("ask %v: %w", a.conn.RemoteAddr(), err)
}
