package nat

import (
	"github.com/boxwire/boxwire/netns/netnstest"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
)

// A program changes a mapping and is gone before it could flush the flows: what it
// committed stays in the table, and the flow goes on where it went. The next
// program's Sync finds the table right, and the flow not.
func TestTheFirstSyncEndsFlowsThatTheTableContradicts(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	echo(t, s.box, "10.88.0.2:53", "one")
	echo(t, s.box, "10.88.0.2:54", "two")
	c, err := s.outside.Dial(t.Context(), "udp", "203.0.113.1:5300")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	port := udp("0.0.0.0:5300", "10.88.0.2:53", "dns")
	if err := s.gw.Publish(t.Context(), port); err != nil {
		t.Fatal(err)
	}
	if got := exchange(t, c, 10*time.Second); got != "one" {
		t.Fatalf("published, the flow reaches %q", got)
	}
	for _, x := range []struct {
		change, want string
		box          string
	}{
		{"delete element inet boxwire any4 { udp . 5300 }; add element inet boxwire any4 { udp . 5300 comment \"dns\" : 10.88.0.2 . 54 }", "two", "10.88.0.2:54"},
		{"delete element inet boxwire any4 { udp . 5300 }", "", ""},
	} {
		before := exchange(t, c, 10*time.Second)
		testutil.Run(t, s.host, "nft", x.change)
		if got := exchange(t, c, 10*time.Second); got != before {
			t.Fatalf("without a flush the flow reaches %q: there is nothing to show", got)
		}
		s.gw.Close()
		s.gw = open(t, s.host)
		state := State{Networks: []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Masquerade: true}}}
		if x.box != "" {
			state.Ports = []Port{udp("0.0.0.0:5300", x.box, "dns")}
		}
		if err := s.gw.Sync(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		within := 10 * time.Second
		if x.want == "" {
			within = 100 * time.Millisecond
		}
		if got := exchange(t, c, within); got != x.want {
			t.Errorf("after Sync the flow reaches %q, want %q", got, x.want)
		}
	}
}
