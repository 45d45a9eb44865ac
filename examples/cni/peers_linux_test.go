package main

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// Containers of one network reach each other, and not those of another, as with the
// ingressPolicy "same-bridge" of the firewall plugin.
func TestNetworksDoNotReachEachOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	a, b, other := r.container("a", ""), r.container("b", ""), r.container("other", "")
	r.add(a)
	r.add(b)
	r2, other := r.second(other, "eth0", "", "")
	r2.add(other)
	serve(t, a)
	for _, at := range []string{"10.89.0.2", "[fd89::2]"} {
		if err := reach(t, b.ns, at, "a"); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if conn, err := other.ns.Dial(ctx, "tcp", at+":80"); err == nil {
			conn.Close()
			t.Errorf("another network's container reaches %s", at)
		}
	}
	r2.del(other)
	r.del(a)
	r.del(b)
	r2.gc()
	r.gc()
	r.clean()
}

// echoUDP answers each datagram with the container's name.
func echoUDP(t testing.TB, c container) {
	t.Helper()
	conn, err := c.ns.ListenPacket(t.Context(), "udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			conn.WriteTo([]byte(c.ContainerID), from)
		}
	}()
}

// A client that keeps its source port is answered by the container that has the port
// now, not by one that had it.
func TestAUDPPortThatAnotherContainerTakesOver(t *testing.T) {
	t.Parallel()
	host, outside := netnstest.Host(t)
	r := newRigOn(t, host.NS, "")
	client, err := outside.ListenPacket(t.Context(), "udp", "203.0.113.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ask := func() string {
		to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.1:8053"))
		if _, err := client.WriteTo([]byte("who"), to); err != nil {
			t.Fatal(err)
		}
		client.SetReadDeadline(time.Now().Add(5 * time.Second))
		b := make([]byte, 64)
		n, _, err := client.ReadFrom(b)
		if err != nil {
			t.Errorf("no answer: %v", err)
		}
		return string(b[:n])
	}
	const port = `"portMappings": [{"hostPort": 8053, "containerPort": 53, "protocol": "udp"}]`
	for _, id := range []string{"first", "second"} {
		c := r.container(id, port)
		echoUDP(t, c)
		r.add(c)
		for range 2 {
			if got := ask(); got != id {
				t.Errorf("%q answers, want %s", got, id)
			}
		}
		r.del(c)
	}
}

// A limit is for its direction alone, and those of the configuration go before the
// runtime's, as with the bandwidth plugin.
func TestLimitsAreForTheirDirection(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, conf, capabilities string
		want, not                []string // rates that tc shows
		ifbs                     int
	}{
		{"what comes in", `"ingressRate": 8000000, "ingressBurst": 800000`, "", []string{"rate 8Mbit"}, nil, 0},
		{"what goes out", `"egressRate": 4000000, "egressBurst": 800000`, "", []string{"rate 4Mbit"}, []string{"rate 8Mbit"}, 1},
		{"neither", `"ingressRate": 0, "egressRate": 0`, "", nil, []string{"tbf"}, 0},
		{"the runtime's", `"dns": {}`, strings.TrimPrefix(limited, ", "), []string{"rate 8Mbit"}, nil, 1},
		{"the configuration's before the runtime's", `"ingressRate": 2000000, "ingressBurst": 800000`, strings.TrimPrefix(limited, ", "), []string{"rate 2Mbit"}, []string{"rate 8Mbit"}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.conf)
			c := r.container("c1", test.capabilities)
			r.add(c)
			out := testutil.Run(t, r.host, "tc", "qdisc", "show")
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("tc lacks %q: %s", want, out)
				}
			}
			for _, not := range test.not {
				if strings.Contains(out, not) {
					t.Errorf("tc has %q: %s", not, out)
				}
			}
			if got := len(r.links("ifb")); got != test.ifbs {
				t.Errorf("%d links limit, want %d", got, test.ifbs)
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}
