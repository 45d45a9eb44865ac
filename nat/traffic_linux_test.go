package nat

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// scene is a host with a bridge, a box behind it, and an outside neighbour with
// routes to the box's addresses.
type scene struct {
	host, box, outside *netns.NS
	gw                 *NAT
}

func newScene(t *testing.T) scene {
	t.Helper()
	s := scene{host: netnstest.New(t), box: netnstest.New(t), outside: netnstest.New(t)}
	plug := func(ns *netns.NS, inside, out string) {
		t.Helper()
		testutil.Run(t, s.host, "ip", "link", "add", out, "type", "veth", "peer", "name", inside)
		// ip takes a process for a namespace without a name.
		pid := strings.TrimSpace(testutil.Run(t, ns, "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"))
		testutil.Run(t, s.host, "ip", "link", "set", inside, "netns", pid)
		testutil.Run(t, ns, "kill", pid)
	}
	plug(s.box, "eth0", "box0")
	plug(s.outside, "wan0", "up0")
	run := func(ns *netns.NS, lines string) {
		t.Helper()
		for line := range strings.Lines(lines) {
			if f := strings.Fields(line); len(f) > 0 {
				testutil.Run(t, ns, "ip", f...)
			}
		}
	}
	run(s.host, `
		link add br0 type bridge
		link set box0 master br0 up
		link set br0 up
		link set up0 up
		addr add 10.88.0.1/16 dev br0
		addr add 203.0.113.1/24 dev up0
		addr add fd88::1/64 dev br0 nodad
		addr add 2001:db8:1::1/64 dev up0 nodad`)
	run(s.box, `
		link set eth0 up
		addr add 10.88.0.2/16 dev eth0
		addr add fd88::2/64 dev eth0 nodad
		route add default via 10.88.0.1
		-6 route add default via fd88::1`)
	run(s.outside, `
		link set wan0 up
		addr add 203.0.113.9/24 dev wan0
		addr add 2001:db8:1::9/64 dev wan0 nodad
		route add 10.88.0.0/16 via 203.0.113.1
		-6 route add fd88::/64 via 2001:db8:1::1`)
	s.gw = open(t, s.host)
	err := s.gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Masquerade: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve answers every TCP connection in ns with the client's address.
func serve(t *testing.T, ns *netns.NS, addr string) {
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
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			fmt.Fprint(c, host)
			c.Close()
		}
	}()
}

// ask connects and returns what the server said.
func ask(t *testing.T, ns *netns.NS, addr string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestTrafficTakesThePublishedWaysOnly(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	serve(t, s.box, ":80")
	serve(t, s.outside, ":80")
	err := s.gw.Publish(t.Context(),
		tcp("0.0.0.0:8080", "10.88.0.2:80", "web"), tcp("[::]:8080", "[fd88::2]:80", "web"),
		tcp("127.0.0.1:9090", "10.88.0.2:80", "web"))
	if err != nil {
		t.Fatal(err)
	}
	// A link that has just come up takes no IPv6 packets for a moment.
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, err := ask(t, s.box, "[2001:db8:1::9]:80")
		if err == nil {
			_, err = ask(t, s.host, "[fd88::2]:80")
		}
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, addr, want string
		from             *netns.NS
	}{
		{"published, source kept", "203.0.113.1:8080", "203.0.113.9", s.outside},
		{"published over IPv6", "[2001:db8:1::1]:8080", "2001:db8:1::9", s.outside},
		{"from the host's 127.0.0.1", "127.0.0.1:8080", "10.88.0.1", s.host},
		{"loopback only", "127.0.0.1:9090", "10.88.0.1", s.host},
		{"from the host's own address", "203.0.113.1:8080", "203.0.113.1", s.host},
		{"hairpin", "203.0.113.1:8080", "10.88.0.1", s.box},
		{"masquerade", "203.0.113.9:80", "203.0.113.1", s.box},
		{"masquerade over IPv6", "[2001:db8:1::9]:80", "2001:db8:1::1", s.box},
		{"host to box", "10.88.0.2:80", "10.88.0.1", s.host},
	} {
		if c.name == "hairpin" { // the box's own port needs the bridge port to send back
			testutil.Run(t, s.host, "ip", "link", "set", "box0", "type", "bridge_slave", "hairpin", "on")
		}
		if got, err := ask(t, c.from, c.addr); err != nil || got != c.want {
			t.Errorf("%s (%s): the server sees %q, %v; want %s", c.name, c.addr, got, err, c.want)
		}
	}
	var wg sync.WaitGroup
	for _, addr := range []string{"10.88.0.2:80", "[fd88::2]:80", "203.0.113.1:9090"} {
		wg.Go(func() {
			if got, err := ask(t, s.outside, addr); err == nil {
				t.Errorf("the outside reaches %s: %q", addr, got)
			}
		})
	}
	wg.Wait()
	ports, err := s.gw.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		if p.Connections == 0 {
			t.Errorf("%v counted no connection", p.Port)
		}
	}
	if err := s.gw.Unpublish(t.Context(), tcp("0.0.0.0:8080", "10.88.0.2:80", "web")); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t, s.outside, "203.0.113.1:8080"); err == nil {
		t.Errorf("after Unpublish: %q", got)
	}
	if t.Failed() {
		t.Log(listing(t, s.host))
	}
}

func TestTheHostBecomesNoRouterForStrangers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	expect(t, s.host, map[string]string{"ipv4/conf/up0/forwarding": "1"})
	testutil.Run(t, s.host, "ip", "route", "add", "198.51.100.0/24", "via", "203.0.113.77")
	testutil.Run(t, s.outside, "ip", "route", "add", "198.51.100.0/24", "via", "203.0.113.1")
	c, err := s.outside.Dial(t.Context(), "udp", "198.51.100.9:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		chain := testutil.Run(t, s.host, "nft", "list", "chain", "inet", "boxwire", "forward")
		if !strings.Contains(chain, "@flipped4 counter packets 0 ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the stranger's packets were not dropped:\n%s", chain)
		}
	}
}
