package netnstest_test

import (
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// Two boxes behind a host that has an outside, and the packets of the host's link
// to it for the case that the test fails.
func Example() {
	_ = func(t *testing.T) { // func TestWayOut(t *testing.T)
		t.Parallel()
		host, outside := netnstest.Host(t)
		_, boxes := netnstest.On(t, host.NS, 2)
		netnstest.Capture(t, host.NS, host.Link)
		if err := host.SetSysctl(t.Context(), "net.ipv4.ip_forward", "1"); err != nil {
			t.Fatal(err)
		}
		c, err := boxes[0].Dial(t.Context(), "udp", outside.Addr4.Addr().String()+":53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	// Output:
}
