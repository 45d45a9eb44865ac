package box

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// newNodes makes nodes 1 and 2 of a fleet, on one wire, with what their agents wire: a tunnel link with the first address of
// each prefix as the host's own, and routes to the other's prefixes that prefer it.
func newNodes(t *testing.T) (a, b *host) {
	t.Helper()
	netnstest.NeedIPv6(t)
	on1, on2 := netnstest.Pair(t)
	a, b = newHost(t, on1.NS, stateOf(1)), newHost(t, on2.NS, stateOf(2))
	join := func(h, peer *host, at netip.Addr) {
		t.Helper()
		ctx := t.Context()
		for _, setting := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			if err := h.SetSysctl(ctx, setting, "1"); err != nil {
				t.Fatal(err)
			}
		}
		fl0, err := link.Create(ctx, h.NS, link.Spec{
			Name: "fl0", Up: true, MTU: h.state.MTU, Kind: link.VXLAN{External: true, GPE: true, Port: 4790, Learning: new(false)},
		})
		if err != nil {
			t.Fatal(err)
		}
		var routes []route.Route
		for i, p := range h.state.Prefixes {
			own := state.Gateway(p)
			if err := fl0.AddAddrs(ctx, link.StaticAddr(netip.PrefixFrom(own, own.BitLen()))); err != nil {
				t.Fatal(err)
			}
			routes = append(routes, route.Route{
				Dst: peer.state.Prefixes[i], Dev: fl0.Index, Src: own, Encap: route.IPEncap{ID: 7, Dst: at, TTL: 64}, Protocol: 201,
			})
			for _, dst := range []netip.Prefix{p, h.state.Pools[i]} {
				routes = append(routes, route.Route{Dst: dst, Type: route.TypeUnreachable, Metric: 1<<32 - 1, Protocol: 201})
			}
		}
		if err := route.Add(ctx, h.NS, routes...); err != nil {
			t.Fatal(err)
		}
		h.agent()
	}
	join(a, b, on2.Addr4.Addr())
	join(b, a, on1.Addr4.Addr())
	return a, b
}

// gatewayPort is where a host answers itself.
const gatewayPort = "8888"

// serveOn has a host answer by a name.
func serveOn(t *testing.T, ns *netns.NS, name string) {
	t.Helper()
	l, err := ns.Listen(t.Context(), "tcp", ":"+gatewayPort)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		io.WriteString(w, name+" from "+from)
	})}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// The first address of a prefix is on the tunnel link and on the bridge. Boxes, the host and the peers all reach it, and by it.
func TestBoxesOfTwoNodes(t *testing.T) {
	t.Parallel()
	a, b := newNodes(t)
	serveOn(t, a.NS, "A")
	serveOn(t, b.NS, "B")
	routes := func() string {
		return testutil.Run(t, a.NS, "ip", "route", "show", "proto", "201") + testutil.Run(t, a.NS, "ip", "-6", "route", "show", "proto", "201") +
			testutil.Run(t, a.NS, "ip", "-br", "addr", "show", "fl0")
	}
	before := routes()
	a1, end := a.start("fleet-a1", "-p", "8080:80")
	b1, _ := b.start("fleet-b1")

	if out := testutil.Run(t, a1, "ip", "link", "show", "eth0"); !strings.Contains(out, " mtu 1464 ") {
		t.Errorf("the box's link is %s, want the MTU of the tunnel", out)
	}
	port := func(addr, port string) string { return net.JoinHostPort(addr, port) }
	type reach struct {
		from     *netns.NS
		at, want string
	}
	for _, test := range []reach{
		// The peer's boxes and the peer itself, by their own addresses.
		{b1, "10.100.1.2", "fleet-a1 from 10.100.2.2"},
		{a1, "10.100.2.2", "fleet-b1 from 10.100.1.2"},
		{b1, "fd99:0:0:1::2", "fleet-a1 from fd99:0:0:2::2"},
		{a1, "fd99:0:0:2::2", "fleet-b1 from fd99:0:0:1::2"},
		{b.NS, "10.100.1.2", "fleet-a1 from 10.100.2.1"},
		{b.NS, "fd99:0:0:1::2", "fleet-a1 from fd99:0:0:2::1"},
		// The host and its boxes.
		{a.NS, "10.100.1.2", "fleet-a1 from 10.100.1.1"},
		{a.NS, "fd99:0:0:1::2", "fleet-a1 from fd99:0:0:1::1"},
		// The address itself.
		{a1, port("10.100.1.1", gatewayPort), "A from 10.100.1.2"},
		{a1, port("fd99:0:0:1::1", gatewayPort), "A from fd99:0:0:1::2"},
		{a.NS, port("10.100.1.1", gatewayPort), "A from 10.100.1.1"},
		{b1, port("10.100.1.1", gatewayPort), "A from 10.100.2.2"},
		{b1, port("fd99:0:0:1::1", gatewayPort), "A from fd99:0:0:2::2"},
		{b.NS, port("10.100.1.1", gatewayPort), "A from 10.100.2.1"},
		{b.NS, port("fd99:0:0:1::1", gatewayPort), "A from fd99:0:0:2::1"},
		// A published port, by the fleet and from outside of it.
		{b1, port("10.100.1.1", "8080"), "fleet-a1 from 10.100.2.2"},
		{b1, port("fd99:0:0:1::1", "8080"), "fleet-a1 from fd99:0:0:2::2"},
		{b.NS, port("10.100.1.1", "8080"), "fleet-a1 from 10.100.2.1"},
		{b.NS, port("10.77.0.1", "8080"), "fleet-a1 from 10.77.0.2"},
		{b1, port("10.77.0.1", "8080"), "fleet-a1 from 10.77.0.2"},
		{a.NS, port("127.0.0.1", "8080"), "fleet-a1 from 10.100.1.1"},
		{a.NS, port("10.100.1.1", "8080"), "fleet-a1 from 10.100.1.1"},
		{a1, port("10.100.1.1", "8080"), "fleet-a1 from 10.100.1.1"},
		// What leaves the fleet has the host's address.
		{a1, port("10.77.0.2", gatewayPort), "B from 10.77.0.1"},
		{a1, port("fd77::2", gatewayPort), "B from fd77::1"},
	} {
		if says := answers(test.from, test.at, test.want); says != "" {
			t.Error(says)
		}
	}

	// The bridge goes with the last box, and takes nothing of the agent's along.
	end()
	if out := testutil.Run(t, a.NS, "ip", "-br", "link"); strings.Contains(out, Bridge) {
		t.Errorf("the bridge is left: %s", out)
	}
	if after := routes(); after != before {
		t.Errorf("after the last box the agent's routes and addresses are\n%s\nthey were\n%s", after, before)
	}
	for _, test := range []reach{
		{b1, port("10.100.1.1", gatewayPort), "A from 10.100.2.2"},
		{b1, port("fd99:0:0:1::1", gatewayPort), "A from fd99:0:0:2::2"},
		{a.NS, "10.100.2.2", "fleet-b1 from 10.100.1.1"},
		{a.NS, "fd99:0:0:2::2", "fleet-b1 from fd99:0:0:1::1"},
	} {
		if says := answers(test.from, test.at, test.want); says != "" {
			t.Error(fmt.Sprint("after the last box: ", says))
		}
	}
}
