package netnstest_test

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// talk sends a word from one box to an address of another, over TCP. Where
// namespaces have no IPv6, boxes have no such address to talk to.
func talk(t *testing.T, from netnstest.Box, to netnstest.Box, addr netip.Addr) {
	t.Helper()
	if !addr.IsValid() && !netnstest.HasIPv6() {
		return
	}
	ln, err := to.Listen(t.Context(), "tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String())
			c.Close()
		}
	}()
	c, err := from.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	want := from.Addr4.Addr()
	if addr.Is6() {
		want = from.Addr6.Addr()
	}
	if err != nil || string(got) != want.String() {
		t.Errorf("%v came from %s, %v; want %v", addr, got, err, want)
	}
}

func TestPairTalks(t *testing.T) {
	t.Parallel()
	a, b := netnstest.Pair(t)
	talk(t, a, b, b.Addr4.Addr())
	talk(t, a, b, b.Addr6.Addr())
	talk(t, b, a, a.Addr4.Addr())
	talk(t, b, a, a.Addr6.Addr())
}

func TestBridgeTalks(t *testing.T) {
	t.Parallel()
	host, boxes := netnstest.Bridge(t, 3)
	for _, b := range boxes {
		talk(t, b, host, host.Addr4.Addr())
		talk(t, host, b, b.Addr6.Addr())
	}
	talk(t, boxes[0], boxes[2], boxes[2].Addr4.Addr())
	talk(t, boxes[2], boxes[1], boxes[1].Addr6.Addr())
	var ports []struct {
		Name   string `json:"ifname"`
		Master string `json:"master"`
	}
	testutil.JSON(t, host.NS, &ports, "bridge", "-j", "link")
	if len(ports) != 3 || ports[0].Name != "box1" || ports[0].Master != "br0" {
		t.Errorf("ports: %+v", ports)
	}
}

// Behind a host that forwards, a box's packets get out, and nothing comes back:
// outside has no route to the box.
func TestHostHasAnOutside(t *testing.T) {
	t.Parallel()
	host, outside := netnstest.Host(t)
	talk(t, host, outside, outside.Addr4.Addr())
	talk(t, outside, host, host.Addr6.Addr())
	inner, boxes := netnstest.On(t, host.NS, 1)
	talk(t, boxes[0], inner, inner.Addr4.Addr())
	for _, tt := range []struct {
		box  netnstest.Box
		want string
	}{{boxes[0], "10.88.0.1"}, {host, "203.0.113.2"}, {outside, ""}} {
		var routes []struct {
			Dst     string `json:"dst"`
			Gateway string `json:"gateway"`
		}
		testutil.JSON(t, tt.box.NS, &routes, "ip", "-j", "-4", "route", "show", "default")
		if tt.want == "" && len(routes) != 0 || tt.want != "" && (len(routes) != 1 || routes[0].Gateway != tt.want) {
			t.Errorf("default routes of %v: %+v, want %q", tt.box.Addr4, routes, tt.want)
		}
	}
}
