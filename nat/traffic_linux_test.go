package nat

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

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
	s.settle(t)
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
