package nat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// parrot serves a port of ns: it sends back what it gets.
func parrot(t *testing.T, ns *netns.NS, addr string) {
	t.Helper()
	ln, err := ns.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { c.Close() })
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

// byteBack sends and gets back a byte.
func byteBack(c net.Conn) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := c.Write([]byte("x"))
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	return err
}

// tap knows the last segment that an end of a connection has sent.
type tap struct {
	wireEnd
	mu   sync.Mutex // guards last
	last parsed
}

// newTap taps the connections that a port of ns is the end of.
func newTap(t *testing.T, ns *netns.NS, dev string, port uint16) *tap {
	t.Helper()
	e := &tap{wireEnd: newWireEnd(t, ns, dev)}
	watchFrames(t, ns, dev, true, func(p parsed) {
		if p.proto == unix.IPPROTO_TCP && p.ack != 0 && p.src.Port() == port && string(p.payload) != "stray" {
			e.mu.Lock()
			e.last = p
			e.mu.Unlock()
		}
	})
	return e
}

// sendOutOfWindow sends a segment of the connection that is far ahead of the others.
func (e *tap) sendOutOfWindow(t *testing.T, to net.HardwareAddr, flags byte) {
	t.Helper()
	e.mu.Lock()
	p := e.last
	e.mu.Unlock()
	// A reset counts if it has the number that is expected next, which the segment
	// acknowledges: the byte of the answer may not be acknowledged yet.
	for n := uint32(0); p.ack != 0 && n < 2; n++ {
		e.sendFrame(t, to, segment{src: p.src, dst: p.dst, seq: p.seq + 1<<30, ack: p.ack + n, flags: flags, text: "stray"}.packet())
	}
}

// A segment that conntrack finds outside the window is not translated, and is for the
// host then, which knows no such connection.
func TestTheHostDoesNotResetWhatItTranslates(t *testing.T) {
	netnstest.NeedIPv6(t)
	each(t, func(t *testing.T, filtered bool) {
		s := newPublished(t, filtered, network0(), network1())
		if err := s.gw.Publish(t.Context(), tcp("0.0.0.0:8087", "10.88.0.2:87", "parrot"), tcp("[::]:8087", "[fd88::2]:87", "parrot")); err != nil {
			t.Fatal(err)
		}
		if err := s.gw.Close(); err != nil { // a socket that keeps the port would be silent
			t.Fatal(err)
		}
		parrot(t, s.box, ":87")
		parrot(t, s.outside, ":87")
		uplink, gate := macOf(t, s.host, "up0"), macOf(t, s.host, "br0")
		const rule = "tcp flags"
		ways := []struct {
			name string
			from *netns.NS
			to   string
			peer *netns.NS // whose segment goes astray
			dev  string
			gate net.HardwareAddr
		}{
			{"outgoing", s.box, "203.0.113.9:87", s.outside, "wan0", uplink},
			{"outgoing over IPv6", s.box, "[2001:db8:1::9]:87", s.outside, "wan0", uplink},
			{"published", s.outside, "203.0.113.1:8087", s.outside, "wan0", uplink},
			{"published over IPv6", s.outside, "[2001:db8:1::1]:8087", s.outside, "wan0", uplink},
			{"sibling to published", s.sibling, "203.0.113.1:8087", s.sibling, "eth0", gate},
			{"sibling to published over IPv6", s.sibling, "[2001:db8:1::1]:8087", s.sibling, "eth0", gate},
		}
		for _, guarded := range []bool{true, false} {
			if !guarded {
				deleteRule(t, s.host, "resets", rule)
			}
			for _, w := range ways {
				for _, flags := range []byte{flagACK, flagACK | flagFIN} {
					name := fmt.Sprintf("%s, flags %#x", w.name, flags)
					conn, err := w.from.Dial(t.Context(), "tcp", w.to)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					defer conn.Close()
					port := uint16(87)
					if w.peer == w.from {
						port = conn.LocalAddr().(*net.TCPAddr).AddrPort().Port()
					}
					end := newTap(t, w.peer, w.dev, port)
					if err := byteBack(conn); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if !guarded {
						if !until(func() bool { end.sendOutOfWindow(t, w.gate, flags); return byteBack(conn) != nil }) {
							t.Errorf("%s: lives on without the rule: the test proves nothing", name)
						}
						continue
					}
					_, before := findRule(t, s.host, "resets", rule)
					if !until(func() bool {
						end.sendOutOfWindow(t, w.gate, flags)
						_, count := findRule(t, s.host, "resets", rule)
						return count > before
					}) {
						t.Errorf("%s: no reset was stopped", name)
					}
					if err := byteBack(conn); err != nil {
						t.Errorf("%s: the connection is dead: %v", name, err)
					}
				}
			}
			// A port of the host without a listener refuses, as ever.
			for _, addr := range []string{"203.0.113.1:4", "[2001:db8:1::1]:4"} {
				if c, err := s.outside.Dial(t.Context(), "tcp", addr); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s: %v, %v", addr, c, err)
				}
			}
		}
	})
}
