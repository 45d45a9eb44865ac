package netnstest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
)

// ipv6Env set to "disabled" makes namespaces as they are on a host that boots with
// ipv6.disable_ipv6=1: no link has IPv6 until a program asks for it.
const ipv6Env = "BOXWIRE_NETNSTEST_IPV6"

// disableIPv6 is the setting of every link of a namespace that is there or comes.
const disableIPv6 = "net.ipv6.conf.all.disable_ipv6"

// HasIPv6 reports whether new namespaces have IPv6. They have not on a host that
// boots with ipv6.disable=1 or ipv6.disable_ipv6=1
// (Documentation/networking/ipv6.rst), and where BOXWIRE_NETNSTEST_IPV6 is
// "disabled". There, [Pair], [Bridge], [On] and [Host] give their boxes IPv4 alone:
// [Box].Addr6 is the zero Prefix.
func HasIPv6() bool { return withoutIPv6() == "" }

// NeedIPv6 skips a test where new namespaces have no IPv6. Where what the test
// needs can be had over IPv4, [HasIPv6] leaves out its IPv6 half instead.
func NeedIPv6(t testing.TB) {
	t.Helper()
	Need(t)
	if why := withoutIPv6(); why != "" {
		t.Skip("needs IPv6: " + why)
	}
}

// withoutIPv6 says why new namespaces have no IPv6; "" where they have. The
// namespace that Main has made for the tests is one of them.
func withoutIPv6() string {
	// Main has read it for the namespace, and before the tests. go test caches a result by what is read
	// while they run.
	os.Getenv(ipv6Env)
	value, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "the kernel has none (ipv6.disable=1)"
	case err == nil && strings.TrimSpace(string(value)) == "1":
		return "it is disabled on new links (net.ipv6.conf.default.disable_ipv6=1)"
	}
	return ""
}

// likeTheHost takes IPv6 from a new namespace where ipv6Env says so. A kernel
// without IPv6 has nothing to take.
func likeTheHost(ctx context.Context, ns *netns.NS) error {
	if os.Getenv(ipv6Env) != "disabled" {
		return nil
	}
	if err := ns.SetSysctl(ctx, disableIPv6, "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", ipv6Env, err)
	}
	return nil
}

// prefixes are the addresses of the box's link.
func (b Box) prefixes() []netip.Prefix {
	if !b.Addr6.IsValid() {
		return []netip.Prefix{b.Addr4}
	}
	return []netip.Prefix{b.Addr4, b.Addr6}
}
