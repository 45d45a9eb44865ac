package forwarding

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// host is a namespace with a bridge br0 and an uplink up0.
func host(t testing.TB) *netns.NS {
	t.Helper()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "ip", "link", "add", "br0", "type", "bridge")
	testutil.Run(t, ns, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0p")
	return ns
}

func expect(t testing.TB, ns *netns.NS, want map[string]string) {
	t.Helper()
	for name, v := range want {
		if got, err := ns.Sysctl(t.Context(), "net/"+name); err != nil || got != v {
			t.Errorf("%s is %s, %v; want %s", name, got, err, v)
		}
	}
}

func try(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// br0 is a network of IPv6 alone.
var br0 = []Network{{Link: "br0", IPv6: true}}

// apply makes and applies a plan as kernels before 6.17 need it.
func apply(t testing.TB, ns *netns.NS, recorded []Change) *Plan {
	t.Helper()
	p, err := Make(t.Context(), ns, br0, recorded, Options{GlobalSwitch: true})
	if err == nil {
		err = Apply(t.Context(), ns, p.Changes)
	}
	try(t, err)
	return p
}

// The way of kernels before 6.17 works on all of them.
func TestTheGlobalSwitchKeepsRouterAdvertisements(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	try(t, ns.SetSysctl(t.Context(), "net/ipv6/conf/up0p/forwarding", "1"))
	p := apply(t, ns, nil)
	on := map[string]string{
		"ipv6/conf/all/forwarding": "1", "ipv6/conf/up0/forwarding": "1",
		"ipv6/conf/up0/accept_ra": "2", "ipv6/conf/br0/accept_ra": "1", "ipv6/conf/up0p/accept_ra": "1",
	}
	expect(t, ns, on)
	try(t, Restore(t.Context(), ns, p.New))
	expect(t, ns, map[string]string{
		"ipv6/conf/all/forwarding": "0", "ipv6/conf/up0/forwarding": "0", "ipv6/conf/up0p/forwarding": "1",
		"ipv6/conf/up0/accept_ra": "1", "ipv6/conf/br0/accept_ra": "1",
	})
	try(t, Apply(t.Context(), ns, p.New))
	expect(t, ns, on)
}

// What IPv4 refuses leaves IPv6 alone.
func TestApplyThatFails(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	testutil.Run(t, ns, "ip", "link", "set", "lo", "mtu", "60") // too small for IPv4
	err := Apply(t.Context(), ns, []Change{
		{Link: "lo", Setting: IPv4Forwarding, From: '0', To: '1'}, {Link: All, Setting: IPv6Forwarding, From: '0', To: '1'},
	})
	if !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Error(err)
	}
	expect(t, ns, map[string]string{"ipv6/conf/all/forwarding": "0"})
}

// A link that has come in the place of another, under its name, since the settings were
// read keeps its own.
func TestALinkThatWasReplaced(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	p, err := Make(t.Context(), ns, []Network{{Link: "br0", IPv4: true, IPv6: true}}, nil, Options{GlobalSwitch: true})
	try(t, err)
	testutil.Run(t, ns, "ip", "link", "del", "up0")
	testutil.Run(t, ns, "ip", "link", "add", "up0", "type", "bridge")
	try(t, Apply(t.Context(), ns, p.Changes))
	expect(t, ns, map[string]string{
		"ipv4/conf/br0/forwarding": "1", "ipv4/conf/up0/forwarding": "0",
		"ipv6/conf/all/forwarding": "1", "ipv6/conf/up0/accept_ra": "1",
	})
	try(t, ns.SetSysctl(t.Context(), "net/ipv4/conf/up0/forwarding", "1"))
	try(t, ns.SetSysctl(t.Context(), "net/ipv6/conf/up0/accept_ra", "2"))
	try(t, Revert(t.Context(), ns, p.Changes))
	expect(t, ns, map[string]string{
		"ipv4/conf/br0/forwarding": "0", "ipv4/conf/up0/forwarding": "1",
		"ipv6/conf/all/forwarding": "0", "ipv6/conf/up0/accept_ra": "2",
	})
}

// Without force_forwarding, a link that comes after the global switch forwards at
// once, and takes no router advertisements.
func TestALateLinkIsNoWayForStrangersEither(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	first := apply(t, ns, nil)
	if again := apply(t, ns, first.New); again.New != nil || again.Changes != nil {
		t.Errorf("again: %+v", again)
	}
	testutil.Run(t, ns, "ip", "link", "add", "late0", "type", "veth", "peer", "name", "late0p")
	testutil.Run(t, ns, "ip", "link", "add", "late1", "type", "bridge")
	try(t, ns.SetSysctl(t.Context(), "net/ipv6/conf/late1/accept_ra", "0"))
	expect(t, ns, map[string]string{"ipv6/conf/late0/forwarding": "1", "ipv6/conf/late0/accept_ra": "1"})
	late := apply(t, ns, first.New)
	var got []string
	for _, c := range late.New {
		got = append(got, c.Link)
	}
	if slices.Sort(got); !slices.Equal(got, []string{"late0", "late0p", "late1"}) {
		t.Errorf("recorded: %v", got)
	}
	on := map[string]string{"ipv6/conf/late0/accept_ra": "2", "ipv6/conf/late1/forwarding": "1"}
	expect(t, ns, on)
	try(t, Revert(t.Context(), ns, late.Changes))
	expect(t, ns, map[string]string{"ipv6/conf/late0/accept_ra": "1", "ipv6/conf/late0/forwarding": "1", "ipv6/conf/late1/forwarding": "1"})
	try(t, Apply(t.Context(), ns, late.Changes))
	expect(t, ns, on)
	recorded := append(slices.Clone(late.New), first.New...)
	slices.Reverse(recorded) // the table has no order
	Sort(recorded)
	try(t, Restore(t.Context(), ns, recorded))
	expect(t, ns, map[string]string{"ipv6/conf/all/forwarding": "0", "ipv6/conf/late0/forwarding": "0", "ipv6/conf/late0/accept_ra": "1", "ipv6/conf/late1/forwarding": "0"})
}

// What is planned for IPv6 by what the settings are, and what is read back of it.
func TestPlanIPv6(t *testing.T) {
	t.Parallel()
	links := []rtnl.Link{{Index: 2, Name: "br0", Kind: "bridge"}, {Index: 3, Name: "port0", Kind: "veth", PortKind: "bridge"}, {Index: 4, Name: "up0"}, {Index: 5, Name: "gone0"}}
	for name, c := range map[string]struct {
		settings map[string]string
		recorded []Change
		want     []Change
	}{
		"a router already": {settings: map[string]string{"all.forwarding": "1", "all.force_forwarding": "0"}},
		"link by link": {
			settings: map[string]string{"all.forwarding": "0", "all.force_forwarding": "0", "br0.force_forwarding": "0", "up0.force_forwarding": "1", "port0.force_forwarding": "0"},
			want:     []Change{{Link: "br0", Index: 2, Setting: IPv6ForceForwarding, From: '0', To: '1'}},
		},
		"the global switch": {
			settings: map[string]string{"all.forwarding": "0", "br0.forwarding": "0", "br0.accept_ra": "1", "up0.forwarding": "0", "up0.accept_ra": "1"},
			want:     []Change{{Link: "br0", Index: 2, Setting: IPv6Forwarding}, {Link: "up0", Index: 4, Setting: IPv6AcceptRA, From: '1', To: '2'}, {Link: All, Setting: IPv6Forwarding, From: '0', To: '1'}},
		},
		"one that forwards": {
			settings: map[string]string{"all.forwarding": "0", "br0.forwarding": "0", "br0.accept_ra": "1", "up0.forwarding": "1", "up0.accept_ra": "1"},
			want:     []Change{{Link: "br0", Index: 2, Setting: IPv6Forwarding}, {Link: "up0", Index: 4, Setting: IPv6Forwarding, From: '1', To: '1'}, {Link: All, Setting: IPv6Forwarding, From: '0', To: '1'}},
		},
		"a late link": {
			settings: map[string]string{"all.forwarding": "1", "br0.forwarding": "1", "br0.accept_ra": "1", "up0.forwarding": "1", "up0.accept_ra": "1"},
			recorded: []Change{{Link: "br0", Setting: IPv6Forwarding}, {Link: All, Setting: IPv6Forwarding, From: '0', To: '1'}},
			want:     []Change{{Link: "up0", Index: 4, Setting: IPv6AcceptRA, From: '1', To: '2'}},
		},
	} {
		read := func(link string, s Setting) (string, error) {
			v, ok := c.settings[link+"."+s.String()]
			if !ok {
				return "", os.ErrNotExist
			}
			return v, nil
		}
		p := &planning{links: links, own: map[string]bool{"br0": true}, recorded: c.recorded}
		if err := p.planIPv6(read, Options{}); err != nil || !slices.Equal(p.plan.New, c.want) || !slices.Equal(p.plan.Changes, c.want) {
			t.Errorf("%s: %v, new %v, %v; want %v", name, p.plan.Changes, p.plan.New, err, c.want)
		}
		for _, change := range c.want {
			change.Index = 0 // which is of one boot only
			if got := ParseNotes(change.Link, change.Note()); !slices.Equal(got, []Change{change}) {
				t.Errorf("%v is recorded as %q and read as %v", change, change.Note(), got)
			}
		}
	}
}
