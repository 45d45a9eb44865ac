package nat

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// A box's report of its groups reaches the host and ports in other groups, but no port in its own, once
// that is the quiet one. What it sends to the group reaches the members, and neighbours find each other.
func TestQuietGroup(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for quiet, heard := range map[uint32]bool{7: false, 8: true} {
		host, boxes := netnstest.Bridge(t, 3)
		testutil.Run(t, host.NS, "ip", "link", "set", "br0", "type", "bridge", "mcast_snooping", "0")
		for _, port := range []string{"box1", "box2"} {
			testutil.Run(t, host.NS, "ip", "link", "set", port, "group", "7")
		}
		gw := open(t, host.NS)
		for range 2 {
			if err := gw.SetQuietGroup(t.Context(), quiet); err != nil {
				t.Fatal(err)
			}
		}
		const group = "[ff05::4242]:4242"
		from, member := boxes[0], boxes[1]
		joined(t, member.NS, "eth0", group)
		atHost, atMember, atOther := arrivals(t, host.NS, "br0"), arrivals(t, member.NS, "eth0"), arrivals(t, boxes[2].NS, "eth0")
		joined(t, from.NS, "eth0", group)
		mac := macOf(t, from.NS, "eth0")
		report := func(f []byte) bool {
			return len(f) > 62 && bytes.Equal(f[6:12], mac) && f[20] == 0 && f[62] == icmp6ListenerReport2
		}
		for _, in := range []func() []byte{atHost, atOther} {
			for !report(in()) {
			}
		}
		c, err := from.NS.Dial(t.Context(), "udp", group)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("to all members")); err != nil {
			t.Fatal(err)
		}
		reported := false
		for f := atMember(); !bytes.HasSuffix(f, []byte("to all members")); f = atMember() {
			reported = reported || report(f)
		}
		if reported != heard {
			t.Errorf("group %d is quiet: the member has heard of the box's group: %v, want %v", quiet, reported, heard)
		}
		echo(t, member.NS, net.JoinHostPort(member.Addr6.Addr().String(), "5300"), "member")
		for _, ns := range []*netns.NS{from.NS, host.NS} {
			testutil.Run(t, ns, "ip", "-6", "neigh", "flush", "all")
			u, err := ns.Dial(t.Context(), "udp", net.JoinHostPort(member.Addr6.Addr().String(), "5300"))
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			if got := exchange(t, u, 10*time.Second); got != "member" {
				t.Errorf("group %d is quiet: %q answers", quiet, got)
			}
		}
	}
}

// joined joins a group until the end of the test.
func joined(t *testing.T, ns *netns.NS, dev, group string) {
	t.Helper()
	at := netip.MustParseAddrPort(group)
	index, err := netns.Do(t.Context(), ns, func(context.Context) (int, error) {
		l, err := net.InterfaceByName(dev)
		if err != nil {
			return 0, err
		}
		return l.Index, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := ns.Socket(t.Context(), unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	c, err := f.SyscallConn()
	if err == nil {
		cerr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptIPv6Mreq(int(fd), unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: at.Addr().As16(), Interface: uint32(index)})
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// arrivals returns a function that waits for the next frame of IPv6 that comes in by a link.
func arrivals(t *testing.T, ns *netns.NS, dev string) func() []byte {
	t.Helper()
	const ipv6 = 0xdd86 // ETH_P_IPV6 in network order
	f, err := netns.Do(t.Context(), ns, func(context.Context) (*os.File, error) {
		l, err := net.InterfaceByName(dev)
		if err != nil {
			return nil, err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), "packets"), unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv6, Ifindex: l.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	b := make([]byte, 2048)
	return func() []byte {
		n, err := f.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
}

// The table is the NAT's alone, is written only where something is to do, and goes with the NAT.
func TestQuietGroupTable(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	table := func() string { return testutil.Run(t, ns, "nft", "list", "ruleset", "bridge") }
	if err := gw.SetQuietGroup(t.Context(), 0); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("group 0: %v", err)
	}
	testutil.Run(t, ns, "nft", "add table bridge boxwire-quiet")
	if err := gw.SetQuietGroup(t.Context(), 7); !errors.Is(err, os.ErrExist) {
		t.Errorf("beside another program's table: %v", err)
	}
	if err := gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := table(); !strings.Contains(got, "boxwire-quiet") {
		t.Errorf("Delete has removed another program's table: %s", got)
	}
	testutil.Run(t, ns, "nft", "delete table bridge boxwire-quiet")
	if err := gw.SetQuietGroup(t.Context(), 7); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the NAT's table: %v", err)
	}
	gw = open(t, ns)
	var seen []string // with the handles of what was made
	for _, group := range []uint32{7, 9, 9} {
		if err := gw.SetQuietGroup(t.Context(), group); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, testutil.Run(t, ns, "nft", "--handle", "list", "ruleset", "bridge"))
	}
	if seen[0] == seen[1] || seen[1] != seen[2] {
		t.Errorf("the tables were %q", seen)
	}
	testutil.Run(t, ns, "nft", "flush chain bridge boxwire-quiet reports")
	if err := gw.SetQuietGroup(t.Context(), 9); err != nil {
		t.Fatal(err)
	}
	if got := table(); strings.Count(got, "iifgroup") != 1 || !strings.Contains(got, "oifgroup") || !strings.Contains(got, "drop") {
		t.Errorf("the table is %s", got)
	}
	if err := gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := table(); got != "" {
		t.Errorf("deleted, there is %s", got)
	}
}

// A NAT may be called like the bridge table of another one. Neither takes the other's table.
func TestQuietGroupBesideGuardsOfThatName(t *testing.T) {
	t.Parallel()
	host, _ := netnstest.Bridge(t, 1)
	testutil.Run(t, host.NS, "ip", "link", "set", "box1", "down")
	gw, other := open(t, host.NS), openWith(t, host.NS, Options{Name: "boxwire-quiet"})
	if err := other.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	guard := Guard{Port: "box1", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Box: addrs("10.88.0.2"), Owner: "web"}
	if err := other.SetGuards(t.Context(), guard); err != nil {
		t.Fatal(err)
	}
	if err := gw.SetQuietGroup(t.Context(), 7); !errors.Is(err, os.ErrExist) {
		t.Errorf("beside guards: %v", err)
	}
	if err := gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all, err := other.ListGuards(t.Context()); len(all) != 1 || err != nil {
		t.Errorf("the guards are %v, %v", all, err)
	}
	gw = open(t, host.NS)
	if err := other.DeleteGuards(t.Context(), "box1"); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, host.NS, "nft", "delete table bridge boxwire-quiet")
	if err := gw.SetQuietGroup(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if err := other.SetGuards(t.Context(), guard); !errors.Is(err, os.ErrExist) {
		t.Errorf("guards beside a quiet group: %v", err)
	}
	if err := other.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := testutil.Run(t, host.NS, "nft", "list", "ruleset", "bridge"); !strings.Contains(got, "iifgroup") {
		t.Errorf("the quiet group has gone: %s", got)
	}
}
