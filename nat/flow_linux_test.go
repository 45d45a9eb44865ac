package nat

import (
	"github.com/boxwire/boxwire/netns/netnstest"
	"net/netip"
	"os"
	"testing"

	"errors"
)

// The sockets at both ends say what the flow has to be.
func TestFlowsTellBothEndsOfAPublishedConnection(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	if err := s.host.SetSysctl(t.Context(), "net.netfilter.nf_conntrack_acct", "1"); err != nil {
		t.Fatal(err)
	}
	ln, err := s.box.Listen(t.Context(), "tcp", "10.88.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := s.gw.Publish(t.Context(), tcp("0.0.0.0:8080", "10.88.0.2:80", "web")); err != nil {
		t.Fatal(err)
	}
	c, err := s.outside.Dial(t.Context(), "tcp", "203.0.113.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	flows, err := s.gw.ListFlows(t.Context(), netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("fd88::2"))
	if err != nil {
		t.Fatal(err)
	}
	var tcps []Flow
	for _, f := range flows {
		if f.Proto == TCP {
			tcps = append(tcps, f)
		}
	}
	if len(tcps) != 1 {
		t.Fatalf("%v", flows)
	}
	f := tcps[0]
	client, box := c.LocalAddr().String(), in.LocalAddr().String()
	if f.Original.Src.String() != client || f.Original.Dst.String() != "203.0.113.1:8080" || f.Reply.Src.String() != box ||
		f.Reply.Dst.String() != in.RemoteAddr().String() || f.State != "ESTABLISHED" || !f.Answered || f.Timeout <= 0 ||
		!f.Counted || f.Sent.Packets < 2 || f.Received.Packets != 1 || f.Sent.Bytes < 80 {
		t.Errorf("%+v", f)
	}
	if want := "tcp " + client + " -> 203.0.113.1:8080 (10.88.0.2:80) ESTABLISHED"; f.String() != want {
		t.Errorf("%q, want %q", f, want)
	}
	if flows, err := s.gw.ListFlows(t.Context(), netip.MustParseAddr("10.88.0.77")); len(flows) != 0 || err != nil {
		t.Errorf("another address has %v, %v", flows, err)
	}
	if all, err := s.gw.ListFlows(t.Context()); len(all) < len(flows) || err != nil {
		t.Errorf("all are %v, %v", all, err)
	}
}

func TestFlowsRefuseWhatIsNoBox(t *testing.T) {
	t.Parallel()
	n := &NAT{}
	for _, a := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.MustParseAddr("::ffff:10.0.0.1")} {
		if _, err := n.ListFlows(t.Context(), a); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%v: %v", a, err)
		}
	}
}
