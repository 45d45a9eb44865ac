package nat

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// published lists the ports, in List's order.
func published(t testing.TB, gw *NAT) (ports []Port) {
	t.Helper()
	all, err := gw.ListPorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		ports = append(ports, p.Port)
	}
	return ports
}

// sorted are the ports as List returns them.
func sorted(ports ...Port) (all []Port) {
	for _, p := range ports {
		all = append(all, p.singles()...)
	}
	slices.SortFunc(all, comparePorts)
	return all
}

func expectPorts(t testing.TB, gw *NAT, want ...Port) {
	t.Helper()
	got := published(t, gw)
	if want := sorted(want...); !slices.Equal(got, want) {
		t.Errorf("published are %v, want %v", got, want)
	}
}

func TestSyncBringsTheTableToTheState(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	gw := open(t, ns)
	empty := listing(t, ns)
	net := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Masquerade: true}
	web, dns := tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("10.1.1.1:53", "10.88.0.3:53", "dns")
	dns.Proto = UDP
	rtp := ranged(tcp("0.0.0.0:10000", "10.88.0.4:10000", "rtp"), 10999)
	for _, s := range []State{
		{Networks: []Network{net}, Ports: []Port{web, dns, rtp}},
		{Networks: []Network{net}, Ports: []Port{web, dns, rtp}}, // again
		{Ports: []Port{dns}}, // less
		{Networks: []Network{net}, Ports: []Port{tcp("0.0.0.0:80", "10.88.0.9:80", "web"), web6()}}, // other data
		{},
	} {
		if err := gw.Sync(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		expectPorts(t, gw, s.Ports...)
		if out := listing(t, ns); strings.Contains(out, `"br0" . "br0"`) != (s.Networks != nil) {
			t.Errorf("the network of %v: %s", s, out)
		}
		forwarding := map[bool]string{true: "1", false: "0"}[s.Networks != nil]
		expect(t, ns, map[string]string{
			"ipv4/conf/br0/forwarding": forwarding, "ipv4/conf/br0/route_localnet": forwarding, "ipv4/conf/up0/forwarding": forwarding,
		})
	}
	if got := listing(t, ns); got != empty {
		t.Errorf("the empty state left:\n%s", got)
	}
}

func web6() Port { return tcp("[2001:db8::1]:80", "[fd88::2]:80", "web") }

func TestSyncLeavesAloneWhatIsRight(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw := open(t, ns)
	s := State{
		Networks: []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}},
		Ports:    []Port{tcp("0.0.0.0:80", "10.88.0.2:80", "web"), ranged(tcp("10.1.1.1:90", "10.88.0.2:90", "web"), 99)},
	}
	if err := gw.Sync(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	c, err := gw.conn()
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := gw.Sync(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if after, err := c.Generation(t.Context()); err != nil || after != before {
		t.Errorf("the ruleset went from generation %d to %d, %v", before, after, err)
	}
}

// What a flush took is restored in one transaction, facts of the host included,
// by the same program.
func TestSyncRestoresAFlushedTable(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, damage := range []string{
		"flush table inet boxwire", "insert rule inet boxwire forward accept", "add chain inet boxwire forward { policy drop; }",
		"flush ruleset", "delete table inet boxwire", "flush ruleset; add table inet boxwire { comment \"boxwire skeleton 1\"; }",
	} {
		ns := host(t)
		gw := open(t, ns)
		s := State{
			Networks: []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64")}},
			Ports:    []Port{tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("10.1.1.1:53", "10.88.0.3:53", "dns")},
		}
		if err := gw.Sync(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		testutil.Run(t, ns, "nft", "add", "element", "inet", "boxwire", "lo_ok", `{ "loopback0" }`)
		if err := gw.Sync(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		before := objects(t, ns)
		testutil.Run(t, ns, "nft", damage)
		if err := gw.Sync(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if after := objects(t, ns); !reflect.DeepEqual(after, before) {
			t.Errorf("after %q and Sync:\n%s", damage, listing(t, ns))
		}
	}
}

// A port on all addresses takes the place of one on a single address, whose socket
// is in its way.
func TestSyncReservesWhatTakesThePlaceOfItsOwn(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	for _, p := range []Port{tcp("10.1.1.1:80", "10.88.0.2:80", "web"), tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("10.1.1.2:80", "10.88.0.2:80", "web")} {
		if err := gw.Sync(t.Context(), State{Ports: []Port{p}}); err != nil {
			t.Fatal(err)
		}
		if missing := gw.ports.Missing(p.claim()); missing != nil || gw.ports.Len() != 1 {
			t.Errorf("%v: %d ports are reserved, not %v", p, gw.ports.Len(), missing)
		}
	}
}

func TestAPartialSyncLeavesTheRest(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw := open(t, ns)
	theirs, ours := tcp("0.0.0.0:80", "10.88.0.2:80", "b-web"), tcp("0.0.0.0:81", "10.88.0.2:80", "a-web")
	err := gw.Sync(t.Context(), State{
		Networks: []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16")}},
		Ports:    []Port{theirs, ours},
	})
	if err != nil {
		t.Fatal(err)
	}
	part := State{Owners: func(owner string) bool { return strings.HasPrefix(owner, "a-") }}
	if err := gw.Sync(t.Context(), part); err != nil {
		t.Fatal(err)
	}
	expectPorts(t, gw, theirs)
	if !strings.Contains(listing(t, ns), `"br0" . "br0"`) {
		t.Error("the network is gone")
	}
	part.Ports = []Port{tcp("10.1.1.1:80", "10.88.0.2:80", "a-web")}
	if err := gw.Sync(t.Context(), part); !errors.Is(err, os.ErrExist) || !strings.Contains(fmt.Sprint(err), `"b-web"`) {
		t.Errorf("a port of another owner in the way: %v", err)
	}
	part.Ports = []Port{tcp("10.1.1.1:90", "10.88.0.2:80", "c")}
	if err := gw.Sync(t.Context(), part); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("an owner that the state does not speak for: %v", err)
	}
	expectPorts(t, gw, theirs)
}

func TestSyncTouchesNoTableOfSomebodyElse(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	testutil.Run(t, ns, "nft", `flush ruleset; table inet boxwire { comment "mine"; }`)
	if err := gw.Sync(t.Context(), State{}); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if out := testutil.Run(t, ns, "nft", "list", "ruleset"); !strings.Contains(out, "mine") {
		t.Errorf("now there is %s", out)
	}
}
