package link

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// syncOwner is the protocol of the entries that the tests sync.
const syncOwner = 77

// edits returns how many requests that change neighbours or FDB entries f sends in ns. If there is a
// hook, it runs before the first one is sent.
func edits(t testing.TB, ns *netns.NS, hook, f func()) (n int) {
	t.Helper()
	conn, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	conn.Fault(func(r nl.Request) nl.Request {
		if r.Type == unix.RTM_NEWNEIGH || r.Type == unix.RTM_DELNEIGH {
			if n++; n == 1 && hook != nil {
				hook()
			}
		}
		return r
	})
	defer conn.Fault(nil)
	f()
	return n
}

// neighsUnchanged makes a call that fails and returns its error. The test fails where ip shows other neighbours
// after it than before.
func neighsUnchanged(t *testing.T, ns *netns.NS, call func() error) error {
	t.Helper()
	shown := func() string {
		return testutil.Run(t, ns, "ip", "neighbour", "show", "nud", "all") + testutil.Run(t, ns, "ip", "neighbour", "show", "proxy")
	}
	before := shown()
	err := call()
	if err == nil {
		t.Fatal("the call does not fail")
	}
	if after := shown(); !sameLines(before, after) {
		t.Errorf("a call that failed has changed\n%s\nto\n%s", before, after)
	}
	return err
}

func sameLines(a, b string) bool {
	return slices.Equal(slices.Sorted(strings.Lines(a)), slices.Sorted(strings.Lines(b)))
}

func TestSyncNeighboursTouchesOnlyTheDifference(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := t.Context()
	ns := netnstest.New(t)
	// Down, so that no change of its carrier takes entries away meanwhile.
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	other := mustCreate(t, ns, Spec{Name: "br1", Kind: Bridge{}})
	addr := netip.MustParseAddr
	for _, args := range [][]string{
		{"10.0.9.1", "lladdr", "02:00:00:00:09:01", "nud", "permanent", "dev", "br0"}, // an administrator's
		{"10.0.9.2", "lladdr", "02:00:00:00:09:02", "nud", "stale", "dev", "br0"},     // as if learned
		{"10.0.9.3", "lladdr", "02:00:00:00:09:03", "nud", "permanent", "protocol", "99", "dev", "br0"},
		{"10.0.9.4", "lladdr", "02:00:00:00:09:04", "nud", "permanent", "protocol", "77", "dev", "br1"},
		{"proxy", "10.0.9.5", "dev", "br0"},
		{"proxy", "10.0.9.6", "protocol", "77", "dev", "br1"},
	} {
		testutil.Run(t, ns, "ip", append([]string{"neighbour", "add"}, args...)...)
	}
	strange := [2]map[string]ipNeigh{showNeighs(t, ns, "nud", "all"), showNeighs(t, ns, "proxy")}

	// sync makes the call and compares with what ip shows, by address: hardware address and state, or
	// "proxy".
	sync := func(name string, did Changes, want map[string]string, list ...Neighbour) {
		t.Helper()
		var got Changes
		var err error
		sent := edits(t, ns, nil, func() { got, err = l.SyncNeighbours(ctx, syncOwner, list...) })
		if err != nil || got != did || sent != did.Added+did.Replaced+did.Deleted {
			t.Errorf("%s: %+v, %v with %d requests, want %+v", name, got, err, sent, did)
		}
		show := map[string]string{}
		for i, all := range []map[string]ipNeigh{showNeighs(t, ns, "nud", "all"), showNeighs(t, ns, "proxy")} {
			for a, n := range all {
				if was, ok := strange[i][a]; ok {
					if was.MAC != n.MAC || !slices.Equal(was.State, n.State) {
						t.Errorf("%s: another program's entry is %+v, was %+v", name, n, was)
					}
					continue
				}
				if show[a] = "proxy"; i == 0 {
					show[a] = n.MAC + " " + strings.Join(n.State, ",")
				}
				if n.Dev != "br0" {
					t.Errorf("%s: ip shows %+v", name, n)
				}
			}
		}
		for a, w := range want {
			if show[a] != w {
				t.Errorf("%s: ip shows %q for %s, want %q", name, show[a], a, w)
			}
		}
		if len(show) != len(want) {
			t.Errorf("%s: ip shows %v, want %v", name, show, want)
		}
	}
	list := []Neighbour{
		{Addr: addr("10.0.0.1"), MAC: mac(1)},
		{Addr: addr("fd00::1"), MAC: mac(2), State: NeighbourNoARP, Flags: NeighbourRouter},
		{Addr: addr("10.0.0.2"), MAC: mac(3), State: NeighbourStale, Flags: NeighbourExtLearned, Protocol: syncOwner},
		{Addr: addr("10.0.0.3"), Flags: NeighbourProxy},
		{Addr: addr("fd00::3"), Flags: NeighbourProxy},
		{Addr: addr("10.0.0.4")},
	}
	want := map[string]string{
		"10.0.0.1": "02:00:00:00:00:01 PERMANENT", "fd00::1": "02:00:00:00:00:02 NOARP", "10.0.0.2": "02:00:00:00:00:03 STALE",
		"10.0.0.3": "proxy", "fd00::3": "proxy", "10.0.0.4": " ",
	}
	sync("all new", Changes{Added: 6}, want, list...)
	sync("again", Changes{}, want, list...)
	slices.Reverse(list)
	sync("in another order", Changes{}, want, list...)
	slices.Reverse(list)

	// What the kernel changes by itself is no difference.
	testutil.Run(t, ns, "ip", "neighbour", "change", "10.0.0.2", "lladdr", mac(3).String(), "nud", "reachable", "extern_learn", "dev", "br0")
	want["10.0.0.2"] = "02:00:00:00:00:03 REACHABLE"
	sync("a state that changes", Changes{}, want, list...)

	list[0].MAC, list[1].Flags, list[2].Flags = mac(9), 0, 0
	want["10.0.0.1"], want["10.0.0.2"] = "02:00:00:00:00:09 PERMANENT", "02:00:00:00:00:03 STALE"
	sync("three changed", Changes{Replaced: 3}, want, list...)
	if n := showNeighs(t, ns, "nud", "all"); n["fd00::1"].Router != nil || n["10.0.0.2"].Ext != nil {
		t.Errorf("ip shows %+v", n)
	}

	// What was learned is replaced, and is the owner's from then on.
	list = append(list, Neighbour{Addr: addr("10.0.9.2"), MAC: mac(5)})
	delete(strange[0], "10.0.9.2")
	want["10.0.9.2"] = "02:00:00:00:00:05 PERMANENT"
	sync("one that was learned", Changes{Replaced: 1}, want, list...)

	// Another program's change is undone.
	testutil.Run(t, ns, "ip", "neighbour", "replace", "10.0.0.1", "lladdr", "02:00:00:00:00:66", "nud", "permanent", "dev", "br0")
	testutil.Run(t, ns, "ip", "neighbour", "delete", "proxy", "10.0.0.3", "dev", "br0")
	testutil.Run(t, ns, "ip", "neighbour", "add", "10.0.0.8", "lladdr", "02:00:00:00:00:08", "nud", "stale", "protocol", "77", "dev", "br0")
	sync("others changed it", Changes{Added: 1, Replaced: 1, Deleted: 1}, want, list...)

	sync("none", Changes{Deleted: len(list)}, map[string]string{})
	sync("none again", Changes{}, map[string]string{})
	if did, err := other.SyncNeighbours(ctx, syncOwner); err != nil || did.Deleted != 2 {
		t.Errorf("the owner's of the other link: %+v, %v", did, err)
	}
}

func TestSyncNeighboursLeavesStrangersAlone(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := t.Context()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	addr := netip.MustParseAddr
	for _, args := range [][]string{
		{"10.0.9.1", "lladdr", "02:00:00:00:09:01", "nud", "permanent"},
		{"10.0.9.2", "lladdr", "02:00:00:00:09:02", "nud", "stale", "protocol", "99"},
		{"fd09::3", "lladdr", "02:00:00:00:09:03", "nud", "stale", "extern_learn"},
		{"proxy", "10.0.9.4"},
		{"10.0.0.2", "lladdr", "02:00:00:00:00:02", "nud", "permanent", "protocol", "77"}, // the owner's
	} {
		testutil.Run(t, ns, "ip", append(append([]string{"neighbour", "add"}, args...), "dev", "br0")...)
	}
	err := neighsUnchanged(t, ns, func() error {
		_, err := l.SyncNeighbours(ctx, syncOwner,
			Neighbour{Addr: addr("10.0.0.1"), MAC: mac(1)}, Neighbour{Addr: addr("10.0.9.1"), MAC: mac(1)}, Neighbour{Addr: addr("10.0.9.2"), MAC: mac(2)},
			Neighbour{Addr: addr("fd09::3"), MAC: mac(3)}, Neighbour{Addr: addr("10.0.9.4"), Flags: NeighbourProxy})
		return err
	})
	wantErr(t, err, os.ErrExist,
		"link.SyncNeighbours neighbour 10.0.9.1 lladdr 02:00:00:00:00:01 on link br0", "another program's entry 10.0.9.1 lladdr 02:00:00:00:09:01",
		"10.0.9.2 lladdr 02:00:00:00:09:02 of the protocol 99", "another program's entry fd09::3", "another program's entry 10.0.9.4 proxy")

	// One that is in no one's way.
	if did, err := l.SyncNeighbours(ctx, syncOwner, Neighbour{Addr: addr("10.0.0.1"), MAC: mac(1)}); err != nil || did != (Changes{Added: 1, Deleted: 1}) {
		t.Errorf("%+v, %v", did, err)
	}
}

// An entry appears between the list and the request.
func TestSyncNeighboursMeetsAnother(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	list := []Neighbour{{Addr: netip.MustParseAddr("10.0.0.1"), MAC: mac(1)}, {Addr: netip.MustParseAddr("10.0.0.2"), MAC: mac(2)}}
	meets := func(state string) (did Changes, err error) {
		edits(t, ns, func() {
			testutil.Run(t, ns, "ip", "neighbour", "add", "10.0.0.2", "lladdr", "02:00:00:00:09:02", "nud", state, "dev", "br0")
		}, func() { did, err = l.SyncNeighbours(ctx, syncOwner, list...) })
		return did, err
	}
	_, err := meets("permanent")
	wantErr(t, err, os.ErrExist, "neighbour 10.0.0.2", "another program's")
	if n := showNeighs(t, ns, "nud", "all"); len(n) != 1 || n["10.0.0.2"].MAC != "02:00:00:00:09:02" {
		t.Errorf("after the refusal ip shows %v", n)
	}
	testutil.Run(t, ns, "ip", "neighbour", "delete", "10.0.0.2", "dev", "br0")
	did, err := meets("stale")
	if err != nil || did != (Changes{Added: 1, Replaced: 1}) {
		t.Errorf("beside what was learned: %+v, %v", did, err)
	}
	if n := showNeighs(t, ns, "nud", "all"); len(n) != 2 || n["10.0.0.2"].MAC != mac(2).String() {
		t.Errorf("ip shows %v", n)
	}
}

func TestSyncNeighboursFailsWhole(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	old := manyNeighbours(300)
	if _, err := l.SyncNeighbours(ctx, syncOwner, old...); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "ip", "neighbour", "add", "10.9.0.1", "lladdr", "02:00:00:00:09:01", "nud", "stale", "dev", "br0")
	fresh := slices.Clone(old[150:])
	for i := range 50 {
		fresh[i].MAC = mac(200)
	}
	for i := range 150 {
		fresh = append(fresh, Neighbour{Addr: netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), MAC: mac(7)})
	}
	fresh[len(fresh)-20].MAC = mac(7)[:4] // behind three sends
	err := neighsUnchanged(t, ns, func() error {
		did, err := l.SyncNeighbours(ctx, syncOwner, fresh...)
		if did != (Changes{}) {
			t.Errorf("a call that failed has counted %+v", did)
		}
		return err
	})
	wantErr(t, err, unix.EINVAL, "neighbour 10.9.0.131 lladdr 02:00:00:00 on link br0", "Invalid link address")
	fresh[len(fresh)-20].MAC = mac(7)
	if did, err := l.SyncNeighbours(ctx, syncOwner, fresh...); err != nil || did != (Changes{Added: 149, Replaced: 51, Deleted: 150}) {
		t.Errorf("%+v, %v", did, err)
	}
	if err := l.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = l.SyncNeighbours(ctx, syncOwner, fresh...)
	wantErr(t, err, os.ErrNotExist, "the link is gone")
}

func TestSyncNeighboursRefuses(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	one := Neighbour{Addr: netip.MustParseAddr("10.0.0.1"), MAC: mac(1)}
	with := func(change func(*Neighbour)) []Neighbour {
		n := one
		change(&n)
		return []Neighbour{n}
	}
	for _, c := range []struct {
		owner uint8
		list  []Neighbour
		says  string
	}{
		{0, nil, "protocol 0 cannot be an owner"},
		{2, nil, "protocol 2 cannot be an owner"},
		{syncOwner, with(func(n *Neighbour) { n.Protocol = 78 }), "not the owner's 77"},
		{syncOwner, with(func(n *Neighbour) { n.State = NeighbourDelay }), "which the kernel alone begins and ends"},
		{syncOwner, with(func(n *Neighbour) { n.Flags = NeighbourUse }), "NeighbourUse"},
		{syncOwner, with(func(n *Neighbour) { n.Addr = netip.Addr{} }), "has no address"},
		{syncOwner, []Neighbour{one, one}, "appears twice"},
		{syncOwner, []Neighbour{{Addr: one.Addr, Flags: NeighbourProxy}, {Addr: one.Addr, Flags: NeighbourProxy}}, "appears twice"},
	} {
		_, err := l.SyncNeighbours(t.Context(), c.owner, c.list...)
		wantErr(t, err, os.ErrInvalid, c.says, "link br0")
	}
	_, err := Link{}.SyncNeighbours(t.Context(), syncOwner, one)
	wantErr(t, err, os.ErrInvalid, "zero value")
	if n := showNeighs(t, ns, "nud", "all"); len(n) != 0 {
		t.Errorf("ip shows %v", n)
	}
	// An address and a proxy entry for it are two.
	if did, err := l.SyncNeighbours(t.Context(), syncOwner, one, Neighbour{Addr: one.Addr, Flags: NeighbourProxy}); err != nil || did.Added != 2 {
		t.Errorf("%+v, %v", did, err)
	}
}

// A flag that an older kernel ignores is an error that names it, and nothing is left.
func TestSyncNeighboursManaged(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	_, a, _ := twoPorts(t, ns)
	if err := a.AddPrefixes(ctx, prefixes("10.0.0.1/24")...); err != nil {
		t.Fatal(err)
	}
	list := []Neighbour{{Addr: netip.MustParseAddr("10.0.0.8"), MAC: mac(8)}, {Addr: netip.MustParseAddr("10.0.0.9"), Flags: NeighbourManaged}}
	did, err := a.SyncNeighbours(ctx, syncOwner, list...)
	if !testutil.KernelAtLeast(5, 16) {
		wantErr(t, err, errors.ErrUnsupported, "neighbour 10.0.0.9 on link a", "Linux >= 5.16")
		if n := showNeighs(t, ns, "nud", "all"); len(n) != 0 {
			t.Errorf("ip shows %v", n)
		}
		return
	}
	if err != nil || did.Added != 2 {
		t.Fatalf("%+v, %v", did, err)
	}
	for range 2 { // whatever has become of it
		if did, err := a.SyncNeighbours(ctx, syncOwner, list...); err != nil || did != (Changes{}) {
			t.Errorf("again: %+v, %v", did, err)
		}
	}
	if did, err := a.SyncNeighbours(ctx, syncOwner, list[0]); err != nil || did != (Changes{Deleted: 1}) {
		t.Errorf("without it: %+v, %v", did, err)
	}
}

// manyNeighbours returns n of them.
func manyNeighbours(n int) []Neighbour {
	list := make([]Neighbour, n)
	for i := range list {
		list[i] = Neighbour{Addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), MAC: net.HardwareAddr{2, 0, 0, 1, byte(i >> 8), byte(i)}}
	}
	return list
}
