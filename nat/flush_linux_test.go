package nat

import (
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestLocalIsWhatTheKernelDeliversHere(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	testutil.Run(t, ns, "ip", "-6", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
	testutil.Run(t, ns, "ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo")
	testutil.Run(t, ns, "ip", "route", "add", "203.0.113.0/24", "dev", "lo")
	testutil.Run(t, ns, "ip", "route", "add", "blackhole", "203.0.113.1/32")
	testutil.Run(t, ns, "ip", "route", "add", "prohibit", "203.0.113.2/32")
	n := &NAT{ns: ns}
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "192.0.2.1": true, "2001:db8::1": true, "198.51.100.7": true,
		"203.0.113.9": false, "203.0.113.1": false, "203.0.113.2": false, "192.0.2.2": false, "2001:db8::2": false,
	} {
		if got, err := n.isLocal(t.Context(), netip.MustParseAddr(addr)); got != want || err != nil {
			t.Errorf("%s: %v, %v; want %v", addr, got, err, want)
		}
	}
}
