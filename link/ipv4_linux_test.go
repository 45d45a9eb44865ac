package link_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// Where IPv6 is disabled, or the kernel has none, IPv4 works alone, also with
// settings that ask for no IPv6, and what needs IPv6 says so.
func TestIPv4WithoutIPv6(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, box := netnstest.New(t), netnstest.New(t)
	for _, ns := range []*netns.NS{host, box} {
		if err := ns.SetSysctl(ctx, "net.ipv6.conf.all.disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	none := link.IPv6Conf{AddrGenMode: new(link.AddrGenNone), Disable: new(true), AcceptRA: new(0), Autoconf: new(false)}
	br, err := link.Create(ctx, host, link.Spec{
		Name: "br0", Up: true, Kind: link.Bridge{}, IPv6: none, Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")},
	})
	if err != nil {
		t.Fatal(err)
	}
	pair := link.Spec{
		Name: "box0", Up: true, Master: br.Ref(), IPv6: none,
		Kind: link.Veth{Peer: link.Spec{
			NS: box, Name: "eth0", Up: true, IPv6: none, Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.2/16")},
		}},
	}
	for range 2 {
		if _, err := link.Ensure(ctx, host, pair); err != nil {
			t.Fatal(err)
		}
	}
	eth, err := link.Get(ctx, box, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := eth.Update(ctx, link.Spec{IPv6: none, MTU: 1400}); err != nil {
		t.Error(err)
	}
	if err := eth.AddPrefixes(ctx, netip.MustParsePrefix("10.88.0.3/16")); err != nil {
		t.Error(err)
	}
	if addrs, err := link.ListAddrs(ctx, box); err != nil || len(addrs) < 2 {
		t.Errorf("addresses %v, %v", addrs, err)
	}
	if _, err := link.ListNeighbours(ctx, box, link.NeighbourFilter{}); err != nil {
		t.Error(err)
	}
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	for e, err := range link.Watch(watched, box, link.TopicLinks, link.TopicAddrs, link.TopicNeighbours) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == link.EventSynced {
			break
		}
	}
	ln, err := host.Listen(ctx, "tcp", "10.88.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := box.Dial(ctx, "tcp", "10.88.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if out := testutil.Run(t, box, "ip", "-4", "-o", "addr", "show", "eth0"); strings.Count(out, "10.88.0.") < 2 {
		t.Errorf("ip shows %s", out)
	}

	err = eth.AddPrefixes(ctx, netip.MustParsePrefix("fd88::2/64"))
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "IPv6") {
		t.Errorf("an IPv6 address: %v", err)
	}
	if !kernel.HasIPv6() {
		_, err = eth.Update(ctx, link.Spec{IPv6: link.IPv6Conf{Forwarding: new(true)}})
		if err == nil {
			t.Error("IPv6 forwarding was set without IPv6")
		}
	}
}
