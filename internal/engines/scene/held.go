package scene

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Held are TCP connections over which a byte goes to and fro all the time.
type Held struct {
	conns []*heldConn
	stop  chan struct{}
	wg    sync.WaitGroup
}

// heldConn is one of them.
type heldConn struct {
	what   string
	conn   net.Conn
	rounds atomic.Int64
	err    atomic.Pointer[error]
}

// tick is the pause between two rounds, patience how long one may take: far longer than a
// few repetitions of TCP, and shorter than what a lost neighbour takes.
const (
	tick     = 20 * time.Millisecond
	patience = 15 * time.Second
)

// hold opens connections of each box: out to the LAN, to the host, from the host, and to the next box; and of the
// LAN to the published port.
func (h *Host) hold(t testing.TB) {
	t.Helper()
	h.Held = &Held{stop: make(chan struct{})}
	t.Cleanup(h.Held.close)
	front := h.Boxes[:len(h.Boxes)-1]
	for _, ns := range []*netns.NS{h.LAN, h.NS} {
		echo(t, ns)
	}
	for _, b := range h.Boxes {
		echo(t, b.NS)
	}
	inner := h.Boxes[len(h.Boxes)-1]
	h.Held.open(t, "inner to the host", inner.NS, "172.30.1.1:7")
	for i, b := range front {
		next := front[(i+1)%len(front)]
		h.Held.open(t, b.Name+" to the LAN", b.NS, "192.0.2.1:7")
		h.Held.open(t, b.Name+" to the LAN by IPv6", b.NS, "[2001:db8:1::1]:7")
		h.Held.open(t, "the host to "+b.Name, h.NS, netip.AddrPortFrom(b.Addr4, 7).String())
		h.Held.open(t, b.Name+" to "+next.Name, b.NS, netip.AddrPortFrom(next.Addr6, 7).String())
	}
}

// echo starts a server that sends back what it gets, at port 7.
func echo(t testing.TB, ns *netns.NS) {
	t.Helper()
	ln, err := ns.Listen(t.Context(), "tcp", ":7")
	if err != nil {
		t.Fatalf("scene: %v", err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
}

func (h *Held) open(t testing.TB, what string, from *netns.NS, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", address)
	if err != nil {
		t.Fatalf("scene: %s: %v", what, err)
	}
	c := &heldConn{what: what, conn: conn}
	h.conns = append(h.conns, c)
	h.wg.Go(func() { c.run(h.stop) })
}

// run goes on until the connection breaks or stop is closed.
func (c *heldConn) run(stop chan struct{}) {
	defer c.conn.Close()
	b := []byte{1}
	for {
		_, err := c.conn.Write(b)
		if err == nil {
			_, err = io.ReadFull(c.conn, b)
		}
		if err != nil {
			c.err.Store(&err)
			return
		}
		c.rounds.Add(1)
		select {
		case <-stop:
			return
		case <-time.After(tick):
		}
	}
}

// Check checks that over each connection a byte goes to and fro that was sent after the call.
func (h *Held) Check(t testing.TB, when string) {
	t.Helper()
	bad, last := 0, ""
	want := make([]int64, len(h.conns))
	for i, c := range h.conns {
		want[i] = c.rounds.Load() + 2
	}
	end := time.Now().Add(patience)
	for i, c := range h.conns {
		for c.rounds.Load() < want[i] && c.err.Load() == nil && time.Now().Before(end) {
			time.Sleep(tick)
		}
		if c.rounds.Load() >= want[i] {
			continue
		}
		bad++
		last = c.what
		if err := c.err.Load(); err != nil {
			last = fmt.Sprintf("%s: %v", c.what, *err)
		}
	}
	if bad > 0 {
		t.Errorf("scene: %s: %d of %d connections are cut off, the last one %s", when, bad, len(h.conns), last)
	}
}

// close ends the connections.
func (h *Held) close() {
	select {
	case <-h.stop:
		return
	default:
	}
	close(h.stop)
	for _, c := range h.conns {
		c.conn.SetDeadline(time.Now())
	}
	h.wg.Wait()
}
