package nat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// A box's report of its groups reaches the host and ports in other groups, but no port in its own, once
// that is the network's. What it sends to the group reaches the members, and neighbours find each other.
func TestPortGroup(t *testing.T) {
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
			if err := gw.SetNetwork(t.Context(), boxNetwork(host, quiet)); err != nil {
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

// boxNetwork is the network of a netnstest.Bridge.
func boxNetwork(host netnstest.Box, group uint32) Network {
	net := Network{Interface: "br0", PortGroup: group}
	for _, a := range []netip.Prefix{host.Addr4, host.Addr6} {
		if a.IsValid() {
			net.Subnets = append(net.Subnets, a)
		}
	}
	return net
}

// quietTables returns the bridge tables as nft lists them, without counters.
func quietTables(t *testing.T, ns *netns.NS) string {
	t.Helper()
	return testutil.Run(t, ns, "nft", "--stateless", "list", "ruleset", "bridge")
}

// groupNetwork is a network that needs no link.
func groupNetwork(i byte, group uint32) Network {
	return Network{
		Interface: "br" + string('0'+i), PortGroup: group,
		Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i}), 16)},
	}
}

// hasGroups checks that a table of reports has the groups and no others, and its rule; without groups,
// that there is no such table.
func hasGroups(t *testing.T, ns *netns.NS, table string, groups ...string) {
	t.Helper()
	got := quietTables(t, ns)
	_, of, there := strings.Cut(got, "table bridge "+table+"/quiet {")
	of, _, _ = strings.Cut(of, "\n}")
	if there != (len(groups) > 0) {
		t.Errorf("groups %v of %s: there is %q", groups, table, got)
		return
	}
	for _, g := range groups {
		if !strings.Contains(of, g+" . "+g) {
			t.Errorf("table %s/quiet lacks the group %s: %s", table, g, of)
		}
	}
	if there && (strings.Count(of, " . ") != len(groups)+2 || strings.Count(of, "iifgroup . oifgroup @groups") != 1 || !strings.Contains(of, "drop")) {
		t.Errorf("table %s/quiet, of the groups %v: %s", table, groups, of)
	}
}

// The groups of the networks are in the bridge table, each once, whatever sets them, and go with the last
// network that has them.
func TestPortGroupsFollowTheNetworks(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(gw.AddNetwork(ctx, groupNetwork(0, 0)))
	hasGroups(t, ns, "boxwire")
	must(gw.AddNetwork(ctx, groupNetwork(1, 7)))
	must(gw.AddNetwork(ctx, groupNetwork(2, 7)))
	must(gw.AddNetwork(ctx, groupNetwork(3, 9)))
	hasGroups(t, ns, "boxwire", "7", "9")
	listing := testutil.Run(t, ns, "nft", "--handle", "list", "ruleset", "bridge")
	must(gw.SetNetwork(ctx, groupNetwork(3, 9)))
	must(gw.DeleteNetwork(ctx, "br1"))
	if now := testutil.Run(t, ns, "nft", "--handle", "list", "ruleset", "bridge"); now != listing {
		t.Errorf("the table was written anew: %s, was %s", now, listing)
	}
	must(gw.SetNetwork(ctx, groupNetwork(2, 8)))
	hasGroups(t, ns, "boxwire", "8", "9")
	all, err := gw.ListNetworks(ctx)
	must(err)
	for i, want := range []uint32{0, 8, 9} {
		if len(all) != 3 || all[i].PortGroup != want {
			t.Errorf("the networks are %+v", all)
		}
	}
	must(gw.SetNetwork(ctx, groupNetwork(2, 0)))
	must(gw.DeleteNetwork(ctx, "br3"))
	hasGroups(t, ns, "boxwire")

	state := State{Networks: []Network{groupNetwork(0, 5), groupNetwork(1, 6)}}
	must(gw.Sync(ctx, state))
	hasGroups(t, ns, "boxwire", "5", "6")
	must(Check(ctx, ns, "", state))
	mine := State{Networks: []Network{groupNetwork(1, 4)}, Owners: func(string) bool { return false }}
	must(gw.Sync(ctx, mine))
	hasGroups(t, ns, "boxwire", "4", "5")
	for _, harm := range []string{"flush chain bridge boxwire/quiet reports", "delete element bridge boxwire/quiet groups { 4 . 4 }"} {
		testutil.Run(t, ns, "nft", harm)
		if err := Check(ctx, ns, "", mine); !errors.Is(err, ErrDamaged) {
			t.Errorf("after %s, Check says %v", harm, err)
		}
		must(gw.SetNetwork(ctx, groupNetwork(1, 4)))
		hasGroups(t, ns, "boxwire", "4", "5")
	}
	testutil.Run(t, ns, "nft", "delete table inet boxwire")
	if err := Check(ctx, ns, "", State{}); !errors.Is(err, ErrDamaged) || errors.Is(err, os.ErrNotExist) {
		t.Errorf("of the table, the bridge table alone is left: %v", err)
	}
	must(open(t, ns).Delete(ctx))
	if err := Check(ctx, ns, "", State{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of the table, nothing is left: %v", err)
	}
	if got := testutil.Run(t, ns, "nft", "list", "ruleset"); got != "" {
		t.Errorf("deleted, there is %s", got)
	}
}

// Maintain restores the bridge table, alone or with the inet table, and leaves it alone where it has its
// own state.
func TestMaintainRestoresPortGroups(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	all := maintain(t, newMaintainer(open(t, ns), always(State{Networks: []Network{groupNetwork(0, 7)}})))
	hasGroups(t, ns, "boxwire", "7")
	before := quietTables(t, ns)
	expectRestored(t, ns, all, []harm{
		{"delete table bridge boxwire/quiet", ReasonTableRemoved},
		{"flush ruleset", ReasonTableRemoved},
		{"flush chain bridge boxwire/quiet reports", ReasonTableChanged},
		{"delete element bridge boxwire/quiet groups { 7 . 7 }", ReasonTableChanged},
		{"add rule bridge boxwire/quiet reports accept", ReasonTableChanged},
		{"delete element inet boxwire port_group { br0 }", ReasonTableChanged},
	}, func(nft string) {
		if after := quietTables(t, ns); after != before {
			t.Errorf("%s: there is %s, want %s", nft, after, before)
		}
	})
}

// Two programs have a table each, and what one does to its groups is nothing to the other. A program with
// a table of that name keeps it, and reports are flooded.
func TestPortGroupsOfTwoPrograms(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	ctx := t.Context()
	one, two := open(t, ns), openWith(t, another(t, ns), Options{Name: "other"})
	oneState := State{Networks: []Network{groupNetwork(0, 7)}}
	repairs := maintain(t, newMaintainer(one, always(oneState)))
	for _, group := range []uint32{7, 9} {
		if err := two.SetNetwork(ctx, groupNetwork(1, group)); err != nil {
			t.Fatal(err)
		}
	}
	hasGroups(t, ns, "boxwire", "7")
	hasGroups(t, ns, "other", "9")
	if err := two.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	hasGroups(t, ns, "boxwire", "7")
	hasGroups(t, ns, "other")
	if len(repairs) > 0 {
		t.Errorf("another program's table has led to a repair: %v", (<-repairs).Repair)
	}

	const theirs = "table bridge third/quiet {\n}\n"
	fresh := netnstest.New(t)
	testutil.Run(t, fresh, "nft", theirs)
	third := openWith(t, fresh, Options{Name: "third"})
	for _, err := range []error{
		third.AddNetwork(ctx, groupNetwork(0, 7)), third.Sync(ctx, oneState), Check(ctx, fresh, "third", oneState), third.Delete(ctx),
	} {
		if err != nil {
			t.Errorf("beside another program's table: %v", err)
		}
	}
	if got := testutil.Run(t, fresh, "nft", "list", "ruleset"); got != theirs {
		t.Errorf("another program's table is now %s", got)
	}
}

// Where the kernel refuses the bridge table, the rest is done without it.
func TestPortGroupWithoutTheFamilyBridge(t *testing.T) {
	t.Parallel()
	refused := func(what string, errno unix.Errno) error {
		return fmt.Errorf("committing: %w", &nft.Error{What: what, Err: &nl.Error{Errno: errno}})
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{refused("table boxwire/quiet", unix.EOPNOTSUPP), true},
		{refused("table boxwire/quiet", unix.EAFNOSUPPORT), true},
		{refused("table boxwire/quiet", unix.EPERM), false},
		{refused("table boxwire", unix.EOPNOTSUPP), false},
		{nil, false},
	} {
		n := &NAT{table: "boxwire"}
		if got := n.lacksBridge(c.err); got != c.want || n.noQuiet != c.want {
			t.Errorf("after %v, the bridge table is left out: %t, want %t", c.err, got, c.want)
		}
		if n.lacksBridge(c.err) {
			t.Errorf("%v is an endless reason to try again", c.err)
		}
	}
	ns := netnstest.New(t)
	gw := open(t, ns)
	gw.noQuiet = true
	if err := gw.AddNetwork(t.Context(), groupNetwork(0, 7)); err != nil {
		t.Fatal(err)
	}
	hasGroups(t, ns, "boxwire")
	if all, err := gw.ListNetworks(t.Context()); err != nil || len(all) != 1 || all[0].PortGroup != 7 {
		t.Errorf("the networks are %+v, %v", all, err)
	}
}

// Guards of a NAT whose name ends with "quiet" are none of another one's reports.
func TestPortGroupBesideGuardsOfANATCalledQuiet(t *testing.T) {
	t.Parallel()
	host, _ := netnstest.Bridge(t, 1)
	gw, other := open(t, host.NS), openWith(t, host.NS, Options{Name: "boxwire-quiet"})
	if err := other.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	guard := Guard{Port: "box1", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Box: addrs("10.88.0.2"), Owner: "web"}
	if err := other.SetGuards(t.Context(), guard); err != nil {
		t.Fatal(err)
	}
	if err := gw.AddNetwork(t.Context(), groupNetwork(0, 7)); err != nil {
		t.Fatal(err)
	}
	hasGroups(t, host.NS, "boxwire", "7")
	if all, err := other.ListGuards(t.Context()); len(all) != 1 || err != nil {
		t.Errorf("the guards are %v, %v", all, err)
	}
	if err := other.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	hasGroups(t, host.NS, "boxwire", "7")
}
