package nat

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/forwarding"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// advertise sends a router advertisement (RFC 4861) to all on the segment: the
// sender is a default router for so many seconds.
func (e wireEnd) advertise(t *testing.T, seconds uint16) {
	t.Helper()
	all := netip.MustParseAddr("ff02::1").As16()
	me := netip.MustParseAddr("fe80::9").As16()
	icmp := []byte{134, 0, 0, 0, 64, 0}
	icmp = append(binary.BigEndian.AppendUint16(icmp, seconds), make([]byte, 8)...)
	addrs := slices.Concat(me[:], all[:])
	binary.BigEndian.PutUint16(icmp[2:], checksum(pseudo(addrs, unix.IPPROTO_ICMPV6, icmp)))
	head := append([]byte{0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255}, addrs...)
	e.sendFrame(t, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, slices.Concat([]byte{0x86, 0xdd}, head, icmp))
}

// advertised returns for how many seconds the host has a default route from an
// advertisement; 0 if it has none.
func advertised(t *testing.T, host *netns.NS) int {
	t.Helper()
	var routes []struct {
		Protocol string
		Expires  int
	}
	testutil.JSON(t, host, &routes, "ip", "-6", "-j", "-d", "route", "show", "default", "dev", "up0")
	for _, r := range routes {
		if r.Protocol == "ra" {
			return r.Expires
		}
	}
	return 0
}

// A host that forwards IPv6 takes no router advertisements, unless accept_ra is 2
// (moby#43466).
func TestForwardingIPv6KeepsTheAdvertisedDefaultRoute(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, c := range []struct {
		name    string
		forward func(t *testing.T, host *netns.NS)
		keeps   bool
	}{
		{"AddNetwork", func(t *testing.T, host *netns.NS) {
			gw := open(t, host)
			if err := gw.AddNetwork(t.Context(), network0()); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"as on kernels without force_forwarding", func(t *testing.T, host *netns.NS) {
			p, err := forwarding.Make(t.Context(), host, []forwarding.Network{{Link: "br0", IPv6: true}}, nil, forwarding.Options{GlobalSwitch: true})
			if err == nil {
				err = forwarding.Apply(t.Context(), host, p.Changes)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, true},
		{"the switch alone", func(t *testing.T, host *netns.NS) {
			setSysctl(t, host, "ipv6/conf/all/forwarding", "1")
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := wire(t)
			end := newWireEnd(t, s.outside, "wan0")
			if !until(func() bool { end.advertise(t, 1800); return advertised(t, s.host) > 0 }) {
				t.Fatal("the host takes no advertisements")
			}
			c.forward(t, s.host)
			if !c.keeps {
				if n := advertised(t, s.host); n != 0 {
					t.Errorf("the route stays, for %d s: the test proves nothing", n)
				}
				return
			}
			if advertised(t, s.host) == 0 {
				t.Error("the default route is gone")
			}
			if !until(func() bool { end.advertise(t, 9000); return advertised(t, s.host) > 1800 }) {
				t.Error("the host takes no advertisements any more")
			}
		})
	}
}
