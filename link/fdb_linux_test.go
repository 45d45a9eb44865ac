package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// bridgeFDB is an entry as bridge(8) prints it.
type bridgeFDB struct {
	MAC    string   `json:"mac"`
	VLAN   int      `json:"vlan"`
	Dev    string   `json:"ifname"`
	Dst    string   `json:"dst"`
	Port   int      `json:"port"`
	VNI    int      `json:"vni"`
	Via    string   `json:"viaIf"`
	Flags  []string `json:"flags"`
	Master string   `json:"master"`
	State  string   `json:"state"`
}

// showFDB is what bridge(8) prints for the unicast addresses that a test made.
// Kernels with VLAN filtering copy an entry without a VLAN into each of the
// port's; these are left out.
func showFDB(t testing.TB, ns *netns.NS, dev string) map[string][]bridgeFDB {
	t.Helper()
	var list []bridgeFDB
	testutil.JSON(t, ns, &list, "bridge", "-j", "fdb", "show", "dev", dev)
	m := map[string][]bridgeFDB{}
	for _, e := range list {
		if e.VLAN != 0 {
			continue
		}
		if e.MAC[:14] == "02:00:00:00:00" || e.MAC[:14] == "00:00:00:00:00" {
			m[e.MAC] = append(m[e.MAC], e)
		}
	}
	return m
}

func TestFDBOfABridgePort(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	br, a, b := twoPorts(t, ns)
	err := a.AddFDBEntries(ctx, FDBEntry{MAC: mac(1)}, FDBEntry{MAC: mac(2), Type: FDBDynamic, Flags: FDBSticky}, FDBEntry{MAC: mac(3), Type: FDBLocal}, FDBEntry{MAC: mac(4), Self: true, Type: FDBLocal})
	if err != nil {
		t.Fatal(err)
	}
	show := showFDB(t, ns, "a")
	for i, want := range []bridgeFDB{{State: "static", Master: "br0"}, {Master: "br0", Flags: []string{"sticky"}}, {State: "permanent", Master: "br0"}, {State: "permanent", Flags: []string{"self"}}} {
		got := show[mac(byte(i+1)).String()]
		if len(got) == 0 { // two where the kernel has VLANs: the port is in VLAN 1
			t.Errorf("bridge shows nothing, want %+v", want)
		}
		for _, e := range got {
			if e.State != want.State || e.Master != want.Master || !slices.Equal(e.Flags, want.Flags) && len(want.Flags)+len(e.Flags) > 0 {
				t.Errorf("bridge shows %v, want %+v", got, want)
			}
		}
	}
	if err := a.AddFDBEntries(ctx, FDBEntry{MAC: mac(8)}); err != nil {
		t.Fatal(err)
	}
	needFDBDelete(t, a.DeleteFDBEntries(ctx, FDBEntry{MAC: mac(8)})) // from here on
	wantErr(t, a.AddFDBEntries(ctx, FDBEntry{MAC: mac(9)}, FDBEntry{MAC: mac(1)}), os.ErrExist, "entry 02:00:00:00:00:01 of link a", "already")
	if show := showFDB(t, ns, "a"); show[mac(9).String()] != nil {
		t.Errorf("left after a failure: %v", show)
	}
	// The address moves to the other port.
	if err := b.ReplaceFDBEntries(ctx, FDBEntry{MAC: mac(1)}); err != nil {
		t.Fatal(err)
	}
	if showFDB(t, ns, "a")[mac(1).String()] != nil || showFDB(t, ns, "b")[mac(1).String()] == nil {
		t.Error("the address did not move")
	}
	list, err := ListFDB(ctx, ns, FDBFilter{Bridge: br.Ref()})
	if err != nil {
		t.Fatal(err)
	}
	find := func(list []FDBEntry, i byte) FDBEntry {
		at := slices.IndexFunc(list, func(e FDBEntry) bool { return e.MAC.String() == mac(i).String() })
		if at < 0 {
			return FDBEntry{}
		}
		return list[at]
	}
	if e := find(list, 1); e.Link != b.Index || e.Type != FDBStatic || e.Self || e.Master != br.Index {
		t.Errorf("ListFDB: %+v", e)
	}
	if e := find(list, 2); e.Link != a.Index || e.Type != FDBDynamic || e.Flags != FDBSticky {
		t.Errorf("ListFDB: %+v", e)
	}
	if e := find(list, 3); e.Type != FDBLocal {
		t.Errorf("ListFDB: %+v", e)
	}
	list, err = ListFDB(ctx, ns, FDBFilter{Link: a.Ref()})
	if e := find(list, 4); err != nil || !e.Self || e.Master != 0 || find(list, 1).MAC != nil {
		t.Errorf("ListFDB of a port: %+v, %v", list, err)
	}
	wantErr(t, a.DeleteFDBEntries(ctx, FDBEntry{MAC: mac(77)}, FDBEntry{MAC: mac(3)}), os.ErrNotExist, "entry 02:00:00:00:00:4d", "no entry")
	if err := a.FlushFDB(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if show := showFDB(t, ns, "a"); show[mac(2).String()] != nil || show[mac(3).String()] != nil || show[mac(4).String()] == nil {
		t.Errorf("after delete and flush: %v", show)
	}
	if err := a.FlushFDB(ctx, func(e FDBEntry) bool { return e.Self && e.MAC.String() == mac(4).String() }); err != nil {
		t.Fatal(err)
	}
	if show := showFDB(t, ns, "a"); len(show) != 0 {
		t.Errorf("after a flush: %v", show)
	}
	// Without VLAN filtering there is no place for one.
	err = a.AddFDBEntries(ctx, FDBEntry{MAC: mac(1), VLAN: 7})
	if err == nil {
		t.Error("VLAN 7 was taken by a port that does not have it")
	} else {
		wantErr(t, err, unix.EINVAL, "VLAN 7")
	}
	wantErr(t, br.AddFDBEntries(ctx, FDBEntry{MAC: mac(1)}), errors.ErrUnsupported, "set Self")
}

// needFDBDelete skips the test where only the machine's administrator may delete
// entries.
func needFDBDelete(t *testing.T, err error) {
	t.Helper()
	if err != nil && !firstUsers(t) {
		testutil.NeedKernel(t, 6, 18, "deleting FDB entries in a user namespace", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestFDBOfAVXLAN(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	testutil.Witness(t, "bridge")
	if out, err := testutil.Try(t, ns, "ip", "link", "add", "vx0", "type", "vxlan", "id", "42", "dstport", "4789", "local", "127.0.0.1"); err != nil {
		testutil.NeedKernel(t, 3, 7, "vxlan", fmt.Errorf("%s: %w", out, errors.ErrUnsupported))
	}
	vx, err := Get(ctx, ns, "vx0")
	if err != nil {
		t.Fatal(err)
	}
	lo, err := Get(ctx, ns, "lo")
	if err != nil {
		t.Fatal(err)
	}
	hosts := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}
	flood := func(i int) FDBEntry { return FDBEntry{Self: true, MAC: make([]byte, 6), Dst: hosts[i]} }
	if err := vx.AddFDBEntries(ctx, flood(0), FDBEntry{Self: true, MAC: mac(1), Dst: hosts[0], Port: 4790, VNI: 77, Via: lo.Index}); err != nil {
		t.Fatal(err)
	}
	if err := vx.AppendFDBEntries(ctx, flood(1), flood(2)); err != nil {
		t.Fatal(err)
	}
	show := showFDB(t, ns, "vx0")
	if all := show["00:00:00:00:00:00"]; len(all) != 3 || all[0].State != "static" {
		t.Errorf("bridge shows the destinations %v", all)
	}
	if e := show[mac(1).String()]; len(e) != 1 || e[0].Dst != "10.0.0.1" || e[0].Port != 4790 || e[0].VNI != 77 || e[0].Via != "lo" {
		t.Errorf("bridge shows %+v", e)
	}
	list, err := ListFDB(ctx, ns, FDBFilter{Link: vx.Ref()})
	if err != nil || len(list) != 4 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, e := range list {
		if !e.Self || e.Type != FDBStatic || !e.Dst.IsValid() {
			t.Errorf("ListFDB: %+v", e)
		}
		if e.MAC.String() == mac(1).String() && (e.Dst != hosts[0] || e.Port != 4790 || e.VNI != 77 || e.Via != lo.Index) {
			t.Errorf("ListFDB: %+v", e)
		}
	}
	if err := vx.ReplaceFDBEntries(ctx, FDBEntry{Self: true, MAC: mac(1), Dst: hosts[1]}); err != nil {
		t.Fatal(err)
	}
	needFDBDelete(t, vx.DeleteFDBEntries(ctx, flood(1)))
	show = showFDB(t, ns, "vx0")
	if len(show["00:00:00:00:00:00"]) != 2 || len(show[mac(1).String()]) != 1 || show[mac(1).String()][0].Dst != "10.0.0.2" {
		t.Errorf("bridge shows %v", show)
	}
	wantErr(t, vx.AddFDBEntries(ctx, FDBEntry{Self: true, MAC: mac(5), Dst: hosts[0]}, FDBEntry{Self: true, MAC: mac(1), Dst: hosts[1]}), os.ErrExist)
	if show := showFDB(t, ns, "vx0"); show[mac(5).String()] != nil {
		t.Errorf("left after a failure: %v", show)
	}
	for want, bad := range map[string]FDBEntry{
		"5 bytes":                     {MAC: mac(1)[:5]},
		"VLANs are 1 to 4094":         {MAC: mac(1), VLAN: 4095},
		"type 3":                      {MAC: mac(1), Type: 3},
		"24 bits":                     {MAC: mac(1), Self: true, VNI: 1 << 24},
		"set Self":                    {MAC: mac(1), Dst: hosts[0]},
		"a destination and a next":    {MAC: mac(1), Self: true, Dst: hosts[0], NextHop: 1},
		"Via -1":                      {MAC: mac(1), Self: true, Via: -1},
		"IPv4 not as IPv6":            {MAC: mac(1), Self: true, Dst: netip.MustParseAddr("::ffff:10.0.0.1")},
		"hardware address of 0 bytes": {},
	} {
		wantErr(t, vx.AddFDBEntries(ctx, bad), os.ErrInvalid, want)
	}
	_, err = ListFDB(ctx, ns, FDBFilter{Link: Ref{Index: 1}, Bridge: Ref{Index: 2}})
	wantErr(t, err, os.ErrInvalid, "a link and a bridge")
}

// Recorded from bridge(8) of iproute2 6.1:
//
//	bridge fdb add 02:00:00:00:00:01 dev a0 master static vlan 5
//	bridge fdb append 00:00:00:00:00:00 dev vx0 dst 10.0.0.9 port 4790 vni 77 via a0 src_vni 3 (permanent)
//	bridge fdb replace 02:00:00:00:00:02 dev a0 master dynamic sticky
//	bridge fdb add 02:00:00:00:00:05 dev vx0 nhid 5 (permanent)
//	bridge fdb show br br0
//	bridge fdb show dev a0
func TestFDBBytesEqualRecorded(t *testing.T) {
	t.Parallel()
	msg := func(index int, e FDBEntry) nl.Request { return encodeFDB(index, &e, editReplace) }
	list := func(m ndMsg) nl.Request { return m.request(unix.RTM_GETNEIGH, 0) }
	for _, c := range []struct {
		name string
		got  nl.Request
		want string
	}{
		{"static with a VLAN", msg(4, FDBEntry{MAC: mac(1), VLAN: 5}), `07000000 04000000 42000400 0a000200 02000000 00010000 06000500 05000000`},
		{"destination", msg(5, FDBEntry{Self: true, Type: FDBLocal, MAC: make([]byte, 6), Dst: netip.MustParseAddr("10.0.0.9"), Port: 4790, VNI: 77, Via: 4, SrcVNI: 3}),
			`07000000 05000000 80000200 0a000200 00000000 00000000 08000100 0a000009 06000600 12b60000 08000700 4d000000 08000b00 03000000 08000800 04000000`},
		{"dynamic and sticky", msg(4, FDBEntry{MAC: mac(2), Type: FDBDynamic, Flags: FDBSticky}), `07000000 04000000 02004400 0a000200 02000000 00020000`},
		{"next hop", msg(5, FDBEntry{Self: true, Type: FDBLocal, MAC: mac(5), NextHop: 5}), `07000000 05000000 80000200 0a000200 02000000 00050000 08000d00 05000000`},
		{"list of a bridge", list(ndMsg{family: unix.AF_BRIDGE, master: 2}), `07000000 00000000 00000000 08000900 02000000`},
		{"list of a port", list(ndMsg{family: unix.AF_BRIDGE, index: 4}), `07000000 04000000 00000000`},
	} {
		if want := hexBytes(t, c.want); !sameNested(c.got.Body, want, sizeofNdMsg) {
			t.Errorf("%s\n got %x\nwant %x", c.name, c.got.Body, want)
		}
	}
}
