package nat

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func proxied(t *testing.T, gw *NAT, proto Proto, host, box string) *Proxy {
	t.Helper()
	p, err := gw.Proxy(t.Context(), Port{Proto: proto, Host: netip.MustParseAddrPort(host), Box: netip.MustParseAddrPort(box)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// What the kernel cannot translate: ::1, and IPv6 for a box with IPv4 only. The
// source address is lost, which a published port keeps (moby#15086).
func TestProxyReachesWhatCannotBeTranslated(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.box, ":80")
	echo(t, s.box, ":53", "dns")
	published := []Port{tcp("[::]:8080", "[fd88::2]:80", "web"), tcp("[::]:5300", "[fd88::2]:53", "dns"), tcp("0.0.0.0:8081", "10.88.0.2:80", "web")}
	published[1].Proto = UDP
	if err := s.gw.Publish(t.Context(), published...); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	ip(t, s.host, "addr add 2001:db8:1::2/64 dev up0 nodad")
	for _, c := range []struct{ host, box, sees string }{
		{"[::1]:8080", "[fd88::2]:80", "fd88::1"}, // by way of the reserved port
		{"[::1]:8081", "10.88.0.2:80", "10.88.0.1"},
		{"[::]:8082", "10.88.0.2:80", "10.88.0.1"},
	} {
		p := proxied(t, s.gw, TCP, c.host, c.box)
		from, addr := s.host, c.host
		if p.Addr().Addr().IsUnspecified() {
			from, addr = s.outside, "[2001:db8:1::1]:8082"
		}
		if got, err := ask(t, from, addr); err != nil || got != c.sees {
			t.Errorf("%v: the box sees %q, %v; want %s", p, got, err, c.sees)
		}
	}
	proxied(t, s.gw, UDP, "[::1]:5300", "[fd88::2]:53")
	proxied(t, s.gw, UDP, "[::]:5301", "10.88.0.2:53")
	for addr, from := range map[string]*netns.NS{"[::1]:5300": s.host, "[2001:db8:1::1]:5301": s.outside, "[2001:db8:1::2]:5301": s.outside} {
		c, err := from.Dial(t.Context(), "udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() // it takes answers from that address only
		if got := exchange(t, c, 10*time.Second); got != "dns" {
			t.Errorf("%s: %q", addr, got)
		}
	}
	// The visitor from outside still reaches the published port, his address kept.
	if got, err := ask(t, s.outside, "[2001:db8:1::1]:8080"); err != nil || got != "2001:db8:1::9" {
		t.Errorf("the published port's box sees %q, %v", got, err)
	}
}

// A megabyte each way, and the end of one way before the other's.
func TestProxyCopiesBothWaysToTheEnd(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	p := proxied(t, s.gw, TCP, "[::1]:8080", "10.88.0.2:80")
	ln, err := s.box.Listen(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	got := make(chan []byte, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c) // up to the visitor's end, before the answer begins
		got <- b
		c.Write(b)
	}()
	c, err := s.host.Dial(t.Context(), "tcp", p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	back, err := io.ReadAll(c)
	if there := <-got; err != nil || !bytes.Equal(there, sent) || !bytes.Equal(back, sent) {
		t.Errorf("%d of %d bytes arrived, %d came back: %v", len(there), len(sent), len(back), err)
	}
}

// ownGoroutines counts those that are in this file's subject.
func ownGoroutines() int {
	b := make([]byte, 1<<20)
	b = b[:runtime.Stack(b, true)]
	n := 0
	for g := range strings.SplitSeq(string(b), "\n\n") {
		if strings.Contains(g, "internal/relay.") {
			n++
		}
	}
	return n
}

// It is not parallel: other tests' proxies would be counted.
func TestClosedProxyLeavesNothing(t *testing.T) {
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	serve(t, s.sibling, ":80")
	if err := s.gw.Publish(t.Context(), tcp("[::]:8080", "[fd88::2]:80", "web")); err != nil {
		t.Fatal(err)
	}
	ln, err := s.box.Listen(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, how := range []string{"Close", "Close of the NAT"} {
		one := proxied(t, s.gw, TCP, "[::1]:8080", "10.88.0.2:80")
		two := proxied(t, s.gw, UDP, "[::]:5300", "10.88.0.2:53")
		c, err := s.host.Dial(t.Context(), "tcp", "[::1]:8080")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		u, err := s.host.Dial(t.Context(), "udp", "[::1]:5300")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		u.Write([]byte("hello"))
		if how == "Close" {
			one.Close()
			two.Close()
			two.Close()
		} else {
			s.gw.Close()
		}
		if n := ownGoroutines(); n != 0 {
			t.Errorf("after %s %d goroutines are left", how, n)
		}
		for _, end := range []net.Conn{c, in} {
			end.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := end.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after %s a connection is open: %v", how, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if c, err := s.host.Dial(ctx, "tcp", "[::1]:8080"); err == nil {
			c.Close()
			t.Errorf("after %s there is an answer", how)
		}
		cancel()
	}
	if _, err := s.gw.Proxy(t.Context(), Port{Proto: TCP, Host: netip.MustParseAddrPort("[::1]:9"), Box: netip.MustParseAddrPort("10.88.0.2:9")}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed NAT: %v", err)
	}
}

func TestProxyRefusesAndReports(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	gw := open(t, ns)
	box := netip.MustParseAddrPort("10.88.0.2:80")
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	for name, p := range map[string]Port{
		"SCTP":         {Proto: SCTP, Host: at("[::1]:80"), Box: box},
		"port 0":       {Proto: TCP, Host: at("[::1]:0"), Box: box},
		"range":        {Proto: TCP, Host: at("[::1]:80"), HostLast: 90, Box: box},
		"multicast":    {Proto: TCP, Host: at("[ff02::1]:80"), Box: box},
		"loopback box": {Proto: TCP, Host: at("[::1]:80"), Box: at("127.0.0.1:80")},
	} {
		if _, err := gw.Proxy(t.Context(), p); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ln, err := ns.Listen(t.Context(), "tcp", "[::1]:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := gw.Proxy(t.Context(), Port{Proto: TCP, Host: at("[::1]:80"), Box: box}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a port in use: %v", err)
	}
	// A box that is not there: the visitor gets an error.
	testutil.Run(t, ns, "ip", "route", "add", "unreachable", "10.88.0.0/16")
	proxied(t, gw, TCP, "[::1]:81", "10.88.0.2:80")
	c, err := ns.Dial(t.Context(), "tcp", "[::1]:81")
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the visitor gets %v", err)
	}
}
