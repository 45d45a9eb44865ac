package nat

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
)

// A connection that an end has reset leaves connection tracking as soon as without the option. While it is
// there, another one with its ports passes for it, and so by rules that do not allow it any more.
func TestResetConnectionsLeaveConnectionTracking(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		if on && !testutil.KernelAtLeast(7, 2) {
			continue // which keeps it for minutes
		}
		for _, byBox := range []bool{false, true} {
			t.Run(fmt.Sprintf("flowtable %t, by the box %t", on, byBox), func(t *testing.T) {
				t.Parallel()
				s := newFlowing(t, nil)
				if !on {
					if err := s.gw.SetNetwork(t.Context(), network0()); err != nil {
						t.Fatal(err)
					}
				}
				setSysctl(t, s.host, "netfilter/nf_conntrack_tcp_timeout_close", "1")
				server, client := s.box, s.outside
				at, to := "10.88.0.2:80", "203.0.113.1:8080"
				if byBox {
					server, client, at, to = s.outside, s.box, "203.0.113.9:90", "203.0.113.9:90"
				}
				hearing(t, server, TCP, at)
				d := begin(t, client, TCP, to)
				if d.answered(t); on {
					d.offloaded(t, s.gw)
				}
				for range 20 { // by the flowtable
					d.answered(t)
				}
				d.Conn.(*net.TCPConn).SetLinger(0)
				d.Close()
				var left []Flow
				if !until(func() bool {
					all, err := s.gw.ListFlows(t.Context(), netip.MustParseAddr("10.88.0.2"))
					if err != nil {
						t.Fatal(err)
					}
					left = slices.DeleteFunc(all, func(f Flow) bool { return f.Original.Src != d.local })
					return len(left) == 0
				}) {
					t.Errorf("there is %v, for another %v", left[0], left[0].Timeout)
				}
			})
		}
	}
}
