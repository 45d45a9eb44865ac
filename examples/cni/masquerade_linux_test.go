package main

import (
	"net"
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// What the outside sees as the source of a container's connection.
func TestTheOutsideSeesTheHostWhereIPMasqSaysSo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, conf string
		prepare    [][]string // the host, before ADD
		masked     bool
	}{
		{"ipMasq", `"ipMasq": true`, nil, true},
		{"without", `"ipMasq": false`, nil, false},
		{
			"ipMasq only, on a bridge that has its addresses",
			`"ipMasq": true, "isGateway": false, "isDefaultGateway": false, "ipam": {"type": "boxwire", "dataDir": "DIR/state",
			"ranges": [[{"subnet": "10.89.0.0/24"}], [{"subnet": "fd89::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`,
			[][]string{
				{"link", "add", "boxwire0", "up", "type", "bridge"},
				{"addr", "add", "10.89.0.1/24", "dev", "boxwire0"},
				{"addr", "add", "fd89::1/64", "dev", "boxwire0", "nodad"},
			}, true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			host, outside := netnstest.Host(t)
			for _, args := range test.prepare {
				testutil.Run(t, host.NS, "ip", args...)
			}
			// The way back to containers, should they show themselves.
			testutil.Run(t, outside.NS, "ip", "route", "add", "10.89.0.0/24", "via", "203.0.113.1")
			testutil.Run(t, outside.NS, "ip", "route", "add", "fd89::/64", "via", "2001:db8::1")
			r := newRigOn(t, host.NS, test.conf)
			c := r.container("c1", "")
			result := r.add(c)
			for i, at := range []string{"203.0.113.2:80", "[2001:db8::2]:80"} {
				ln, err := outside.Listen(t.Context(), "tcp", at)
				if err != nil {
					t.Fatal(err)
				}
				// The host has found its neighbour when its own connection is there.
				var seen net.Conn
				for _, from := range []*netns.NS{host.NS, c.ns} {
					conn, err := from.Dial(t.Context(), "tcp", at)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					if seen, err = ln.Accept(); err != nil {
						t.Fatal(err)
					}
					defer seen.Close()
				}
				ln.Close()
				want := addrOf(result, i)
				if test.masked {
					want = []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")}[i]
				}
				if got := seen.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != want {
					t.Errorf("%s sees %v, want %v", at, got, want)
				}
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			r.del(c)
			r.gc()
		})
	}
}
