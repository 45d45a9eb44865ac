package netnstest_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// A box behind a host that forwards connects to a listener outside.
func Example() {
	run(func(t testing.TB) { // func TestWayOut(t *testing.T)
		host, outside := netnstest.Host(t)
		bridge, boxes := netnstest.On(t, host.NS, 2)
		netnstest.Capture(t, host.NS, host.Link) // kept if the test fails
		if err := host.SetSysctl(t.Context(), "net.ipv4.ip_forward", "1"); err != nil {
			t.Fatal(err)
		}
		back := route.To(bridge.Addr4.Masked(), host.Addr4.Addr())
		if err := route.Add(t.Context(), outside.NS, back); err != nil {
			t.Fatal(err)
		}
		connect(t, boxes[0], outside)
	})
	// Output: outside sees 10.88.0.2
}

// connect makes a connection from one box to another and prints who the other sees.
func connect(t testing.TB, from, to netnstest.Box) {
	ln, err := to.Listen(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := from.Dial(t.Context(), "tcp", netip.AddrPortFrom(to.Addr4.Addr(), 80).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	visitor, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer visitor.Close()
	fmt.Println("outside sees", visitor.RemoteAddr().(*net.TCPAddr).IP)
}

// run calls the body of a test as a test does. Examples have no testing.T.
func run(body func(testing.TB)) {
	t := new(exampleT)
	defer func() {
		for i := range t.cleanups {
			t.cleanups[len(t.cleanups)-1-i]()
		}
	}()
	body(t)
}

type exampleT struct {
	testing.TB // nil: the other methods are not called
	cleanups   []func()
}

func (*exampleT) Context() context.Context          { return context.Background() }
func (*exampleT) Helper()                           {}
func (*exampleT) Failed() bool                      { return false }
func (t *exampleT) Cleanup(fn func())               { t.cleanups = append(t.cleanups, fn) }
func (*exampleT) Fatal(args ...any)                 { log.Fatal(args...) }
func (*exampleT) Fatalf(format string, args ...any) { log.Fatalf(format, args...) }
func (*exampleT) Errorf(format string, args ...any) { log.Fatalf(format, args...) }
