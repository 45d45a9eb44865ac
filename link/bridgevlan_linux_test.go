package link

import (
	"encoding/binary"
	"errors"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// vlanBridge makes a bridge that filters VLANs, with a port.
func vlanBridge(t *testing.T) (ns *netns.NS, br, port Link) {
	t.Helper()
	ns = netnstest.New(t)
	br, port, _ = twoPorts(t, ns)
	if err := port.AddVLANs(t.Context(), PortVLAN{ID: 1}); err != nil {
		testutil.NeedKernel(t, 5, 6, "VLAN filtering in bridges", err)
	}
	testutil.Run(t, ns, "ip", "link", "set", "br0", "type", "bridge", "vlan_filtering", "1")
	return ns, br, port
}

// bridgeVLAN is a range as bridge(8) prints it.
type bridgeVLAN struct {
	ID    int      `json:"vlan"`
	End   int      `json:"vlanEnd"`
	Flags []string `json:"flags"`
}

func showVLANs(t testing.TB, ns *netns.NS, dev string) (ranges []bridgeVLAN) {
	t.Helper()
	var list []struct {
		Dev   string       `json:"ifname"`
		VLANs []bridgeVLAN `json:"vlans"`
	}
	testutil.JSON(t, ns, &list, "bridge", "-j", "vlan", "show", "dev", dev)
	for _, l := range list {
		if l.Dev != dev {
			continue
		}
		// In JSON iproute2 shows ranges in some versions and single VLANs in others.
		for _, v := range l.VLANs {
			last := max(v.ID, v.End)
			if n := len(ranges); n > 0 && max(ranges[n-1].ID, ranges[n-1].End) == v.ID-1 && len(v.Flags) == 0 && len(ranges[n-1].Flags) == 0 {
				ranges[n-1].End = last
				continue
			}
			ranges = append(ranges, v)
		}
	}
	return ranges
}

func sameVLANs(a, b []bridgeVLAN) bool {
	return slices.EqualFunc(a, b, func(a, b bridgeVLAN) bool {
		return a.ID == b.ID && a.End == b.End && slices.Equal(a.Flags, b.Flags)
	})
}

func TestVLANsOfAPortAndOfTheBridge(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns, br, port := vlanBridge(t)
	if err := port.AddVLANs(ctx, PortVLAN{ID: 10, PVID: true, Untagged: true}, PortVLAN{ID: 100, End: 200}); err != nil {
		t.Fatal(err)
	}
	want := []bridgeVLAN{{ID: 1}, {ID: 10, Flags: []string{"PVID", "Egress Untagged"}}, {ID: 100, End: 200}}
	if got := showVLANs(t, ns, "a"); !sameVLANs(got, want) {
		t.Errorf("bridge shows %+v, want %+v", got, want)
	}
	got, err := port.VLANs(ctx)
	if err != nil || len(got) != 3 || got[1].ID != 10 || !got[1].PVID || !got[1].Untagged || got[2].ID != 100 || got[2].End != 200 || got[2].State != PortForwarding {
		t.Errorf("VLANs: %+v, %v", got, err)
	}
	if err := br.AddVLANs(ctx, PortVLAN{ID: 10}); err != nil {
		t.Fatal(err)
	}
	if got := showVLANs(t, ns, "br0"); !slices.ContainsFunc(got, func(v bridgeVLAN) bool { return v.ID == 10 }) {
		t.Errorf("bridge shows %+v for itself", got)
	}
	if err := port.DeleteVLANs(ctx, PortVLAN{ID: 120, End: 130}, PortVLAN{ID: 1}); err != nil {
		t.Fatal(err)
	}
	want = []bridgeVLAN{{ID: 10, Flags: []string{"PVID", "Egress Untagged"}}, {ID: 100, End: 119}, {ID: 131, End: 200}}
	if got := showVLANs(t, ns, "a"); !sameVLANs(got, want) {
		t.Errorf("bridge shows %+v, want %+v", got, want)
	}
	wantErr(t, port.DeleteVLANs(ctx, PortVLAN{ID: 131}, PortVLAN{ID: 119, End: 120}), os.ErrNotExist, "VLAN 119-120")
	if got := showVLANs(t, ns, "a"); !sameVLANs(got, want) {
		t.Errorf("after a failure bridge shows %+v, want %+v", got, want)
	}
	if err := port.SyncVLANs(ctx, PortVLAN{ID: 100, End: 110}, PortVLAN{ID: 7, PVID: true}); err != nil {
		t.Fatal(err)
	}
	want = []bridgeVLAN{{ID: 7, Flags: []string{"PVID"}}, {ID: 100, End: 110}}
	if got := showVLANs(t, ns, "a"); !sameVLANs(got, want) {
		t.Errorf("bridge shows %+v, want %+v", got, want)
	}
	wantErr(t, mustCreate(t, ns, Spec{Name: "out", Kind: Veth{Peer: Spec{Name: "outp"}}}).AddVLANs(ctx, PortVLAN{ID: 1}), os.ErrInvalid, "not the port of a bridge")
	// An entry of the forwarding database in one of the port's VLANs.
	if err := port.AddFDBEntries(ctx, FDBEntry{MAC: mac(1), VLAN: 100}); err != nil {
		t.Error(err)
	}
	wantErr(t, port.AddFDBEntries(ctx, FDBEntry{MAC: mac(1), VLAN: 999}), unix.EINVAL, "VLAN 999")
}

func TestVLANTunnels(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	_, _, port := vlanBridge(t)
	tunnels := PortVLAN{ID: 10, End: 20, Tunnel: 1000}
	before, err := port.VLANs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, port.AddVLANs(ctx, PortVLAN{ID: 50}, tunnels), unix.EINVAL, "VLANTunnel")
	if after, err := port.VLANs(ctx); err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("after a failure %v, were %v, %v", after, before, err)
	}
	if err := port.SetPort(ctx, PortOptions{VLANTunnel: new(true)}); err != nil {
		t.Fatal(err)
	}
	if err := port.AddVLANs(ctx, tunnels); err != nil {
		t.Fatal(err)
	}
	list, err := port.VLANs(ctx)
	if err != nil || len(list) != 2 || list[1].ID != 10 || list[1].End != 20 || list[1].Tunnel != 1000 {
		t.Errorf("VLANs: %+v, %v", list, err)
	}
	// The tunnel stays, the flags change; then the tunnel changes, then goes.
	for _, step := range []PortVLAN{{ID: 12, Untagged: true, Tunnel: 1002}, {ID: 12, Tunnel: 5}, {ID: 12}} {
		if err := port.AddVLANs(ctx, step); err != nil {
			t.Fatal(err)
		}
		list, err := port.VLANs(ctx)
		i := slices.IndexFunc(list, func(v PortVLAN) bool { return v.ID == 12 })
		if err != nil || i < 0 || list[i].Tunnel != step.Tunnel || list[i].Untagged != step.Untagged {
			t.Errorf("after %+v: %+v, %v", step, list, err)
		}
	}
}

func TestVLANsWhereTheKernelHasNone(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	_, port, _ := twoPorts(t, ns)
	for _, err := range []error{port.AddVLANs(t.Context(), PortVLAN{ID: 5}), port.DeleteVLANs(t.Context(), PortVLAN{ID: 5})} {
		if err != nil {
			wantErr(t, err, errors.ErrUnsupported, "CONFIG_BRIDGE_VLAN_FILTERING")
		}
	}
	for want, bad := range map[string][]PortVLAN{
		"out of range":        {{ID: 0}},
		"VLAN 4095":           {{ID: 4095}},
		"VLAN 4000-4095":      {{ID: 4000, End: 4095}},
		"ends before":         {{ID: 7, End: 6}},
		"cannot be the PVID":  {{ID: 7, End: 9, PVID: true}},
		"both to be the PVID": {{ID: 7, PVID: true}, {ID: 8, PVID: true}},
		"24 bits":             {{ID: 7, End: 9, Tunnel: 1<<24 - 2}},
		"VLAN 8 appears":      {{ID: 7, End: 9}, {ID: 8}},
	} {
		wantErr(t, port.AddVLANs(t.Context(), bad...), os.ErrInvalid, want)
		wantErr(t, port.SyncVLANs(t.Context(), bad...), os.ErrInvalid, want)
	}
}

// Recorded from bridge(8) of iproute2 6.1:
//
//	bridge vlan add vid 10 pvid untagged dev a0
//	bridge vlan add vid 100-200 dev a0
//	bridge vlan add vid 10 dev br0 self
//	bridge vlan del vid 100-200 dev a0
//	bridge vlan add dev a0 vid 10 tunnel_info id 1000
//	bridge vlan del dev a0 vid 10-20 tunnel_info id 1000-1010
//
// A single tunnel_info carries no VLAN there; here the VLAN's own attribute
// stands before it.
func TestVLANBytesEqualRecorded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		got  nl.Request
		want string
	}{
		{"pvid", vlanRequest(unix.RTM_SETLINK, 4, false, []PortVLAN{{ID: 10, PVID: true, Untagged: true}}, true),
			`07000000 04000000 00000000 00000000 0c001a00 08000200 06000a00`},
		{"range", vlanRequest(unix.RTM_SETLINK, 4, false, []PortVLAN{{ID: 100, End: 200}}, true),
			`07000000 04000000 00000000 00000000 14001a00 08000200 08006400 08000200 1000c800`},
		{"self", vlanRequest(unix.RTM_SETLINK, 2, true, []PortVLAN{{ID: 10}}, true),
			`07000000 02000000 00000000 00000000 14001a00 06000000 02000000 08000200 00000a00`},
		{"delete", vlanRequest(unix.RTM_DELLINK, 4, false, []PortVLAN{{ID: 100, End: 200, Tunnel: 7}}, true),
			`07000000 04000000 00000000 00000000 14001a00 08000200 08006400 08000200 1000c800`},
		{"tunnel", vlanRequest(unix.RTM_SETLINK, 4, false, []PortVLAN{{ID: 10, Tunnel: 1000}}, false),
			`07000000 04000000 00000000 00000000 20001a00 1c000300 08000100 e8030000 06000200 0a000000 06000300 00000000`},
		{"delete tunnels", vlanRequest(unix.RTM_DELLINK, 4, false, []PortVLAN{{ID: 10, End: 20, Tunnel: 1000}}, false),
			`07000000 04000000 00000000 00000000 3c001a00 1c000300 08000100 e8030000 06000200 0a000000 06000300 08000000
			1c000300 08000100 f2030000 06000200 14000000 06000300 10000000`},
	} {
		if want := hexBytes(t, c.want); !sameNested(c.got.Body, want, unix.SizeofIfInfomsg) {
			t.Errorf("%s\n got %x\nwant %x", c.name, c.got.Body, want)
		}
	}
}

// sampleVLANs is the body of an RTM_NEWVLAN message with a single VLAN and a range.
func sampleVLANs() []byte {
	b := append([]byte{unix.AF_BRIDGE, 0, 0, 0}, binary.NativeEndian.AppendUint32(nil, 4)...)
	entry := func(flags, id, end uint16, tunnel uint32) {
		var at, in int
		b, at = nl.Begin(b, vlanEntry)
		b = nl.AppendAttr(b, vlanEntryInfo, binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, flags), id))
		if end != 0 {
			b = nl.AppendU16(b, vlanEntryRange, end)
		}
		b = nl.AppendU8(b, vlanEntryState, 3)
		if tunnel != 0 {
			b, in = nl.Begin(b, vlanEntryTunnel)
			b = nl.AppendU32(b, vlanTunnelID, tunnel)
			nl.End(b, in)
		}
		b = nl.AppendAttr(b, 77, []byte{1}) // newer than the library
		nl.End(b, at)
	}
	entry(vlanPVID|vlanUntagged, 1, 0, 0)
	entry(0, 10, 20, 1000)
	return b
}

func TestVLANRanges(t *testing.T) {
	t.Parallel()
	list, err := decodeVLANs(nil, sampleVLANs())
	want := []PortVLAN{{ID: 1, PVID: true, Untagged: true, State: 3}, {ID: 10, End: 20, Tunnel: 1000, State: 3}}
	if err != nil || !slices.Equal(list, want) {
		t.Fatalf("decoded %+v, %v", list, err)
	}
	var s vlanSet
	s.add(list...)
	s.add(PortVLAN{ID: 21, Tunnel: 1011}, PortVLAN{ID: 22, Tunnel: 5}, PortVLAN{ID: 23, PVID: true})
	if !s.remove(PortVLAN{ID: 15}) || s.remove(PortVLAN{ID: 15}) {
		t.Error("remove")
	}
	want = []PortVLAN{{ID: 1, Untagged: true}, {ID: 10, End: 14, Tunnel: 1000}, {ID: 16, End: 21, Tunnel: 1006}, {ID: 22, Tunnel: 5}, {ID: 23, PVID: true}}
	if got := s.ranges(every); !slices.Equal(got, want) {
		t.Errorf("ranges %+v, want %+v", got, want)
	}
}

func FuzzDecodeVLANs(f *testing.F) {
	f.Add(sampleVLANs())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := decodeVLANs(nil, b)
		if err != nil {
			return
		}
		var s, again vlanSet
		s.add(list...)
		again.add(s.ranges(every)...)
		if s != again {
			t.Errorf("%+v became %+v", s.ranges(every), again.ranges(every))
		}
	})
}
