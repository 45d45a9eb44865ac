package link

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// fdbLines are the entries that bridge(8) shows of a link, one a line, for the addresses that the tests
// use.
func fdbLines(t testing.TB, ns *netns.NS, dev string) (lines []string) {
	t.Helper()
	for line := range strings.Lines(testutil.Run(t, ns, "bridge", "fdb", "show", "dev", dev)) {
		if strings.HasPrefix(line, "02:00:00:00:") || strings.HasPrefix(line, "00:00:") {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}
	slices.Sort(lines)
	return lines
}

// fdbUnchanged makes a call that fails and returns its error. The test fails where bridge shows other
// entries after it than before.
func fdbUnchanged(t *testing.T, l Link, list ...FDBEntry) error {
	t.Helper()
	before := fdbLines(t, l.ns, l.Name)
	did, err := l.SyncFDB(t.Context(), list...)
	if err == nil || did != (Changes{}) {
		t.Fatalf("the call does not fail: %+v, %v", did, err)
	}
	if after := fdbLines(t, l.ns, l.Name); !slices.Equal(before, after) {
		t.Errorf("a call that failed has changed\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	return err
}

// syncsTo makes the call and compares the Changes, the number of requests, and what bridge shows.
func syncsTo(t *testing.T, l Link, name string, did Changes, requests int, want []string, list ...FDBEntry) {
	t.Helper()
	var got Changes
	var err error
	sent := edits(t, l.ns, nil, func() { got, err = l.SyncFDB(t.Context(), list...) })
	needFDBDelete(t, err)
	if got != did || sent != requests {
		t.Errorf("%s: %+v with %d requests, want %+v with %d", name, got, sent, did, requests)
	}
	want = slices.Sorted(slices.Values(want))
	if show := fdbLines(t, l.ns, l.Name); !slices.Equal(show, want) {
		t.Errorf("%s: bridge shows\n%s\nwant\n%s", name, strings.Join(show, "\n"), strings.Join(want, "\n"))
	}
}

func TestSyncFDBOfABridgePort(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	_, a, b := twoPorts(t, ns)
	if err := a.AddFDBEntries(ctx, FDBEntry{MAC: mac(8)}); err != nil {
		t.Fatal(err)
	}
	needFDBDelete(t, a.DeleteFDBEntries(ctx, FDBEntry{MAC: mac(8)}))
	// What is not the caller's.
	if err := a.AddFDBEntries(ctx, FDBEntry{MAC: mac(11), Type: FDBLocal}, FDBEntry{MAC: mac(12), Type: FDBDynamic}, FDBEntry{MAC: mac(13), Type: FDBDynamic, Flags: FDBExtLearned}, FDBEntry{MAC: mac(14), Self: true, Type: FDBLocal}); err != nil {
		t.Fatal(err)
	}
	if err := b.AddFDBEntries(ctx, FDBEntry{MAC: mac(15)}, FDBEntry{MAC: mac(16), Type: FDBDynamic}); err != nil {
		t.Fatal(err)
	}
	strange := fdbLines(t, ns, "a")
	beside := fdbLines(t, ns, "b")
	// lines are those of an entry: one without a VLAN and, where the kernel has VLANs, one in VLAN 1.
	lines := func(i byte, flags string) (all []string) {
		for _, line := range []string{"%v vlan 1 %smaster br0 static", "%v %smaster br0 static"} {
			if !strings.Contains(line, "vlan") || hasVLANs(strange) {
				all = append(all, fmt.Sprintf(line, mac(i), flags))
			}
		}
		return all
	}
	all := func(more ...[]string) []string { return slices.Concat(append(more, strange)...) }

	one, two := FDBEntry{MAC: mac(1)}, FDBEntry{MAC: mac(2), Flags: FDBSticky}
	syncsTo(t, a, "new", Changes{Added: 2}, 2, all(lines(1, ""), lines(2, "sticky ")), one, two)
	syncsTo(t, a, "again", Changes{}, 0, all(lines(1, ""), lines(2, "sticky ")), two, one)
	one.Flags = FDBSticky
	syncsTo(t, a, "one changed, one gone", Changes{Replaced: 1, Deleted: 1}, 2, all(lines(1, "sticky ")), one)
	if now := fdbLines(t, ns, "b"); !slices.Equal(now, beside) {
		t.Errorf("the other port has %v, had %v", now, beside)
	}
	// The address that was learned at the other port moves.
	syncsTo(t, a, "one learned elsewhere", Changes{Added: 1, Replaced: 1, Deleted: 1}, 3, all(lines(2, ""), lines(16, "")), FDBEntry{MAC: mac(2)}, FDBEntry{MAC: mac(16)})
	syncsTo(t, a, "none", Changes{Deleted: 2}, 2, strange)

	// No entry of another's is taken.
	err := fdbUnchanged(t, a, one, FDBEntry{MAC: a.MAC}, FDBEntry{MAC: mac(11)}, FDBEntry{MAC: mac(13)}, FDBEntry{MAC: mac(15)})
	wantErr(t, err, os.ErrExist, "link.SyncFDB entry 02:00:00:00:00:0b of link a", "local", fmt.Sprintf("entry %s of link a", a.MAC),
		"entry 02:00:00:00:00:0d of link a", "FDBExtLearned", "entry 02:00:00:00:00:0f of link a", fmt.Sprintf("the port with the index %d has a static entry", b.Index))
}

// hasVLANs reports whether the kernel makes an entry without a VLAN in each of the port's.
func hasVLANs(lines []string) bool {
	return slices.ContainsFunc(lines, func(s string) bool { return strings.Contains(s, " vlan 1 ") })
}

func TestSyncFDBOfABridgePortWithVLANs(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns, _, port := vlanBridge(t)
	if err := port.SyncVLANs(ctx, PortVLAN{ID: 1, PVID: true}, PortVLAN{ID: 5, End: 6}); err != nil {
		t.Fatal(err)
	}
	if err := port.AddFDBEntries(ctx, FDBEntry{MAC: mac(8)}); err != nil {
		t.Fatal(err)
	}
	needFDBDelete(t, port.DeleteFDBEntries(ctx, FDBEntry{MAC: mac(8)}))
	strange := fdbLines(t, ns, "a")
	in := func(i byte, vlans ...int) (all []string) {
		for _, v := range vlans {
			line := fmt.Sprintf("%v vlan %d master br0 static", mac(i), v)
			all = append(all, strings.Replace(line, " vlan 0", "", 1))
		}
		return all
	}
	all := func(more ...[]string) []string { return slices.Concat(append(more, strange)...) }
	every, five, six := FDBEntry{MAC: mac(1)}, FDBEntry{MAC: mac(1), VLAN: 5}, FDBEntry{MAC: mac(1), VLAN: 6}
	other := FDBEntry{MAC: mac(2), VLAN: 5}
	syncsTo(t, port, "in every VLAN", Changes{Added: 2}, 2, all(in(1, 0, 1, 5, 6), in(2, 5)), every, other)
	// A VLAN comes and one goes: the kernel takes an entry away with the VLAN, and makes none.
	if err := port.SyncVLANs(ctx, PortVLAN{ID: 1, PVID: true}, PortVLAN{ID: 5, End: 7}); err != nil {
		t.Fatal(err)
	}
	strange = slices.DeleteFunc(fdbLines(t, ns, "a"), func(s string) bool { return strings.Contains(s, "static") })
	syncsTo(t, port, "in one more", Changes{Replaced: 1}, 1, all(in(1, 0, 1, 5, 6, 7), in(2, 5)), every, other)
	syncsTo(t, port, "again", Changes{}, 0, all(in(1, 0, 1, 5, 6, 7), in(2, 5)), other, every)
	// To delete the one without a VLAN, all are deleted.
	syncsTo(t, port, "in two", Changes{Added: 2, Deleted: 1}, 3, all(in(1, 5, 6), in(2, 5)), five, six, other)
	syncsTo(t, port, "in one", Changes{Deleted: 1}, 1, all(in(1, 6), in(2, 5)), six, other)
	syncsTo(t, port, "none", Changes{Deleted: 2}, 2, strange)

	// What was there in some VLANs, and what was learned without one, comes back.
	if err := port.AddFDBEntries(ctx, five, FDBEntry{MAC: mac(3)}, FDBEntry{MAC: mac(4), Type: FDBDynamic}); err != nil {
		t.Fatal(err)
	}
	if err := port.DeleteFDBEntries(ctx, FDBEntry{MAC: mac(4), VLAN: 5}, FDBEntry{MAC: mac(4), VLAN: 6}); err != nil {
		t.Fatal(err)
	}
	// So does what another port has in a VLAN, and what a routing daemon manages.
	b, err := Get(ctx, ns, "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SyncVLANs(ctx, PortVLAN{ID: 1, PVID: true}, PortVLAN{ID: 5}); err != nil {
		t.Fatal(err)
	}
	if err := b.AddFDBEntries(ctx, FDBEntry{MAC: mac(6), VLAN: 5}); err != nil {
		t.Fatal(err)
	}
	if err := port.AddFDBEntries(ctx, FDBEntry{MAC: mac(7)}); err != nil {
		t.Fatal(err)
	}
	if err := port.DeleteFDBEntries(ctx, FDBEntry{MAC: mac(7), VLAN: 5}); err != nil { // which 5.10 does not let a daemon take over
		t.Fatal(err)
	}
	if err := port.AddFDBEntries(ctx, FDBEntry{MAC: mac(7), VLAN: 5, Flags: FDBExtLearned}); err != nil {
		t.Fatal(err)
	}
	others := fdbLines(t, ns, "b")
	before := fdbLines(t, ns, "a")
	defer func() {
		if now := fdbLines(t, ns, "b"); !slices.Equal(now, others) {
			t.Errorf("the other port has\n%s\nwant\n%s", strings.Join(now, "\n"), strings.Join(others, "\n"))
		}
	}()
	_, err = port.SyncFDB(ctx, every, FDBEntry{MAC: mac(3), VLAN: 6}, FDBEntry{MAC: mac(4)}, FDBEntry{MAC: mac(5), VLAN: 99})
	wantErr(t, err, unix.EINVAL, "entry 02:00:00:00:00:05 vlan 99", "VLAN 99")
	if now := fdbLines(t, ns, "a"); !slices.Equal(now, before) {
		t.Errorf("after a failure bridge shows\n%s\nwant\n%s", strings.Join(now, "\n"), strings.Join(before, "\n"))
	}
	// What a routing daemon manages stays where the one without a VLAN goes.
	if _, err := port.SyncFDB(ctx, every); err != nil {
		t.Fatal(err)
	}
	if now := strings.Join(fdbLines(t, ns, "a"), "\n"); !strings.Contains(now, mac(7).String()+" vlan 5 ") || strings.Contains(now, mac(7).String()+" vlan 6 ") {
		t.Errorf("bridge shows\n%s", now)
	}
	_, err = port.SyncFDB(ctx, every, five)
	wantErr(t, err, os.ErrInvalid, "entry 02:00:00:00:00:01 vlan 5", "once without a VLAN")
	_, err = port.SyncFDB(ctx, five, five)
	wantErr(t, err, os.ErrInvalid, "given twice")
}

// vxlanFor makes a VXLAN and says whether FDB entries can be deleted.
func vxlanFor(t *testing.T, kind VXLAN) Link {
	t.Helper()
	ns := netnstest.New(t)
	testutil.Witness(t, "bridge")
	kind.Port = 4789
	vx, err := Create(t.Context(), ns, Spec{Name: "vx0", Kind: kind})
	testutil.NeedKernel(t, 3, 7, "vxlan", err)
	e := FDBEntry{Self: true, MAC: mac(99), Dst: netip.MustParseAddr("10.0.0.99")}
	if err := vx.AddFDBEntries(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	needFDBDelete(t, vx.DeleteFDBEntries(t.Context(), e))
	return vx
}

func TestSyncFDBOfAVXLAN(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	vx := vxlanFor(t, VXLAN{ID: new(uint32(42)), Remote: netip.MustParseAddr("10.0.0.200")})
	host := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	flood := func(i int) FDBEntry { return FDBEntry{Self: true, MAC: make([]byte, 6), Dst: host(i)} }
	to := func(m byte, i int) FDBEntry { return FDBEntry{Self: true, MAC: mac(m), Dst: host(i)} }
	// Those of the kernel, of a routing daemon and what is learned.
	testutil.Run(t, vx.ns, "bridge", "fdb", "add", mac(11).String(), "dev", "vx0", "dst", "10.0.0.9", "extern_learn")
	testutil.Run(t, vx.ns, "bridge", "fdb", "add", mac(12).String(), "dev", "vx0", "dst", "10.0.0.9", "dynamic")
	strange := fdbLines(t, vx.ns, "vx0")
	all := func(more ...string) []string { return append(more, strange...) }
	zero, m1 := "00:00:00:00:00:00", mac(1).String()

	syncsTo(t, vx, "new", Changes{Added: 3}, 3, all(zero+" dst 10.0.0.1 self permanent", zero+" dst 10.0.0.2 self permanent", m1+" dst 10.0.0.1 self static"), flood(1), flood(2), to(1, 1))
	same := []FDBEntry{to(1, 1), flood(2), flood(1)}
	same[0].Port, same[1].VNI, same[2].Type = 4789, 42, FDBLocal // the VXLAN's own
	syncsTo(t, vx, "again", Changes{}, 0, all(zero+" dst 10.0.0.1 self permanent", zero+" dst 10.0.0.2 self permanent", m1+" dst 10.0.0.1 self static"), same...)
	one := to(1, 2)
	one.Port, one.VNI, one.Flags = 4790, 7, FDBRouter
	syncsTo(t, vx, "one moved, one gone, one come", Changes{Added: 1, Replaced: 1, Deleted: 1}, 3,
		all(zero+" dst 10.0.0.2 self permanent", zero+" dst 10.0.0.3 self permanent", m1+" dst 10.0.0.2 port 4790 vni 7 self router static"), flood(3), flood(2), one)
	syncsTo(t, vx, "what was learned, and the default", Changes{Replaced: 1, Deleted: 3}, 4,
		slices.DeleteFunc(all(mac(12).String()+" dst 10.0.0.1 self static"), func(s string) bool { return s == mac(12).String()+" dst 10.0.0.9 self" }), to(12, 1), flood(200))
	testutil.Run(t, vx.ns, "bridge", "fdb", "del", mac(12).String(), "dev", "vx0", "dst", "10.0.0.1")
	strange = fdbLines(t, vx.ns, "vx0")
	syncsTo(t, vx, "none", Changes{}, 0, strange)

	// Everything is undone when the last one is refused.
	if _, err := vx.SyncFDB(ctx, flood(1), flood(2), to(1, 1), to(2, 1)); err != nil {
		t.Fatal(err)
	}
	err := fdbUnchanged(t, vx, flood(3), flood(2), to(1, 3), to(3, 1), FDBEntry{Self: true, MAC: mac(4), Dst: netip.MustParseAddr("fd00::1")})
	wantErr(t, err, unix.EAFNOSUPPORT, "entry 02:00:00:00:00:04 dst fd00::1 of link vx0")
	_, err = vx.SyncFDB(ctx, to(11, 1))
	wantErr(t, err, os.ErrExist, "entry 02:00:00:00:00:0b", "FDBExtLearned")
	_, err = vx.SyncFDB(ctx, to(1, 1), to(1, 2))
	wantErr(t, err, os.ErrInvalid, "given twice", "only groups")
	_, err = vx.SyncFDB(ctx, flood(1), flood(1))
	wantErr(t, err, os.ErrInvalid, "destination is given twice")
}

// Destinations for all addresses come to those of other types, next hops and none.
func TestSyncFDBOfAVXLANRemakesWhatTheKernelCannotChange(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	vx := vxlanFor(t, VXLAN{ID: new(uint32(42))})
	for i := range 2 {
		testutil.Run(t, vx.ns, "ip", "nexthop", "add", "id", fmt.Sprint(i+1), "via", fmt.Sprintf("10.0.0.%d", i+1), "fdb")
		testutil.Run(t, vx.ns, "ip", "nexthop", "add", "id", fmt.Sprint(i+11), "group", fmt.Sprint(i+1), "fdb")
	}
	all := make(net.HardwareAddr, 6)
	flood := func(s string) FDBEntry { return FDBEntry{Self: true, MAC: all, Dst: netip.MustParseAddr(s)} }
	hop := func(m net.HardwareAddr, id uint32) FDBEntry { return FDBEntry{Self: true, MAC: m, NextHop: id} }
	zero, m1 := all.String(), mac(1).String()
	syncsTo(t, vx, "next hops", Changes{Added: 2}, 2, []string{zero + " nhid 11 self static", m1 + " nhid 11 self static"}, hop(all, 11), hop(mac(1), 11))
	syncsTo(t, vx, "again", Changes{}, 0, []string{zero + " nhid 11 self static", m1 + " nhid 11 self static"}, hop(all, 11), hop(mac(1), 11))
	syncsTo(t, vx, "others", Changes{Added: 1, Replaced: 1, Deleted: 1}, 3, []string{zero + " nhid 12 self static", m1 + " nhid 12 self static"}, hop(all, 12), hop(mac(1), 12))
	err := fdbUnchanged(t, vx, flood("10.0.0.7"), FDBEntry{Self: true, MAC: mac(1), Dst: netip.MustParseAddr("10.0.0.7")}, hop(mac(2), 99))
	wantErr(t, err, unix.EINVAL, "entry 02:00:00:00:00:02 of link vx0")
	syncsTo(t, vx, "hosts", Changes{Added: 1, Replaced: 1, Deleted: 1}, 4, []string{zero + " dst 10.0.0.7 self static", m1 + " dst 10.0.0.7 self static"},
		flood("10.0.0.7"), FDBEntry{Self: true, MAC: mac(1), Dst: netip.MustParseAddr("10.0.0.7")})
	syncsTo(t, vx, "none", Changes{Deleted: 2}, 2, nil)

	// Those that age are made again.
	age := flood("10.0.0.1")
	age.Type = FDBDynamic
	if err := vx.AddFDBEntries(ctx, age); err != nil {
		t.Fatal(err)
	}
	syncsTo(t, vx, "not the caller's", Changes{}, 0, []string{zero + " dst 10.0.0.1 self"})
	syncsTo(t, vx, "beside it", Changes{Added: 1, Deleted: 1}, 2, []string{zero + " dst 10.0.0.2 self static"}, flood("10.0.0.2"))
}

func TestSyncFDBOfAnExternalVXLAN(t *testing.T) {
	t.Parallel()
	vx := vxlanFor(t, VXLAN{External: true})
	in := func(vni uint32, m net.HardwareAddr, s string) FDBEntry {
		return FDBEntry{Self: true, MAC: m, SrcVNI: vni, VNI: vni, Dst: netip.MustParseAddr(s)}
	}
	all := make(net.HardwareAddr, 6)
	m1 := mac(1).String()
	syncsTo(t, vx, "new", Changes{Added: 4}, 4, []string{
		m1 + " dst 10.0.0.1 vni 7 src_vni 7 self static", m1 + " dst 10.0.0.2 vni 8 src_vni 8 self static",
		all.String() + " dst 10.0.0.1 vni 7 src_vni 7 self static", all.String() + " dst 10.0.0.1 vni 8 src_vni 8 self static",
	}, in(7, mac(1), "10.0.0.1"), in(8, mac(1), "10.0.0.2"), in(7, all, "10.0.0.1"), in(8, all, "10.0.0.1"))
	syncsTo(t, vx, "one VNI gone", Changes{Deleted: 2}, 2, []string{
		m1 + " dst 10.0.0.2 vni 8 src_vni 8 self static", all.String() + " dst 10.0.0.1 vni 8 src_vni 8 self static",
	}, in(8, mac(1), "10.0.0.2"), in(8, all, "10.0.0.1"))
}

func TestSyncFDBRefuses(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	br, a, _ := twoPorts(t, ns)
	host := netip.MustParseAddr("10.0.0.1")
	for want, e := range map[string]FDBEntry{
		"which can be synced for a VXLAN only": {MAC: mac(1), Self: true},
		"is not static":                        {MAC: mac(1), Type: FDBLocal},
		"FDBUse or FDBExtLearned":              {MAC: mac(1), Flags: FDBExtLearned},
		"5 bytes":                              {MAC: mac(1)[:5]},
	} {
		_, err := a.SyncFDB(ctx, e)
		wantErr(t, err, os.ErrInvalid, want, "link.SyncFDB link a")
	}
	_, err := br.SyncFDB(ctx)
	wantErr(t, err, os.ErrInvalid, "neither the port of a bridge nor a VXLAN")
	vx := vxlanFor(t, VXLAN{ID: new(uint32(42))})
	for want, e := range map[string]FDBEntry{
		"set Self":               {MAC: mac(1)},
		"has a VLAN":             {MAC: mac(1), Self: true, VLAN: 5, Dst: host},
		"is for many addresses":  {MAC: make([]byte, 6), Self: true},
		"and is no router":       {MAC: make([]byte, 6), Self: true, Dst: host, Flags: FDBRouter},
		"is not static: entries": {MAC: mac(1), Self: true, Dst: host, Type: FDBDynamic},
	} {
		_, err := vx.SyncFDB(ctx, e)
		wantErr(t, err, os.ErrInvalid, want)
	}
	if err := vx.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = vx.SyncFDB(ctx)
	wantErr(t, err, os.ErrNotExist)
}
