package testutil

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/boxwire/boxwire/netns"
)

// Flows makes n UDP flows in a namespace that tracks connections, half of them of
// each family, from the ports 10000 on and to them. They stay for as long as a
// test may take.
func Flows(t testing.TB, ns *netns.NS, n int) {
	t.Helper()
	if n == 0 {
		return
	}
	if err := ns.SetSysctl(t.Context(), "net/netfilter/nf_conntrack_udp_timeout", "3600"); err != nil {
		t.Fatal(err)
	}
	for i, addr := range []string{"127.0.0.2", "::1"} {
		c, err := ns.ListenPacket(t.Context(), "udp", net.JoinHostPort(addr, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for port := range (n + 1 - i) / 2 {
			if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(addr), Port: 10000 + port}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := CountFlows(t, ns); got < n {
		t.Fatalf("the kernel counts %d flows, want %d", got, n)
	}
}

// CountFlows returns how many flows the kernel counts in a namespace.
func CountFlows(t testing.TB, ns *netns.NS) int {
	t.Helper()
	text, err := ns.Sysctl(t.Context(), "net/netfilter/nf_conntrack_count")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(fmt.Errorf("nf_conntrack_count: %w", err))
	}
	return n
}
