package link

import (
	"bytes"
	"context"
	"errors"
	"os"
	"reflect"
	"testing"

	"github.com/jsimonetti/rtnetlink/v2/driver"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// ipPort is a bridge port as ip(8) prints it.
type ipPort struct {
	Info struct {
		Kind string         `json:"info_slave_kind"`
		Data map[string]any `json:"info_slave_data"`
	} `json:"linkinfo"`
}

func showPort(t testing.TB, ns *netns.NS, name string) map[string]any {
	t.Helper()
	var ports []ipPort
	testutil.JSON(t, ns, &ports, "ip", "-d", "-j", "link", "show", "dev", name)
	return ports[0].Info.Data
}

// twoPorts makes a bridge with two ports that forward.
func twoPorts(t testing.TB, ns *netns.NS) (br, a, b Link) {
	t.Helper()
	br = mustCreate(t, ns, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	port := func(name string) Link {
		l := mustCreate(t, ns, Spec{Name: name, Up: true, Master: br.Ref(), Kind: Veth{Peer: Spec{Name: name + "p", Up: true}}})
		if err := l.WaitForwarding(t.Context()); err != nil {
			t.Fatal(err)
		}
		return l
	}
	return br, port("a"), port("b")
}

func TestSetPortEverySettingReadBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	_, a, b := twoPorts(t, ns)
	o := PortOptions{
		State: new(PortDisabled), Priority: new(7), Cost: new(123), Hairpin: new(true), Guard: new(true), RootBlock: new(true),
		FastLeave: new(true), Learning: new(false), UnicastFlood: new(false), ProxyARP: new(true), ProxyARPWiFi: new(true),
		MulticastRouter: new(MulticastRouterAlways), MulticastFlood: new(false), MulticastToUnicast: new(true), VLANTunnel: new(true),
		BroadcastFlood: new(false), GroupForwardMask: new(uint16(0x4008)), NeighbourSuppress: new(true), Isolated: new(true), BackupPort: new(b.Index),
	}
	if err := a.SetPort(ctx, o); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"state": "disabled", "priority": 7.0, "cost": 123.0, "hairpin": true, "guard": true, "root_block": true,
		"fastleave": true, "learning": false, "flood": false, "proxy_arp": true, "proxy_arp_wifi": true,
		"multicast_router": 2.0, "mcast_flood": false, "mcast_to_unicast": true, "vlan_tunnel": true,
		"bcast_flood": false, "group_fwd_mask": "0x4008", "neigh_suppress": true, "isolated": true, "backup_port": "b",
	}
	got := showPort(t, ns, "a")
	for k, v := range want {
		if got[k] != v {
			t.Errorf("ip shows %s %v, want %v", k, got[k], v)
		}
	}
	p, err := a.Port(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.missing(&p.PortOptions); err != nil {
		t.Error(err)
	}
	bridge := "8000." + ipLinks(t, ns)["br0"].MAC
	if p.Number != 1 || p.ID != 7<<10|1 || p.DesignatedRoot.String() != bridge || p.DesignatedBridge.String() != bridge || p.DesignatedBridge.Priority() != 0x8000 {
		t.Errorf("%+v, ip shows %v", p, got)
	}
	// The second port is as it was made.
	if p := showPort(t, ns, "b"); p["hairpin"] != false || p["priority"] != 32.0 || p["isolated"] != false || p["state"] != "forwarding" {
		t.Errorf("the other port: %v", p)
	}
	if err := a.SetPort(ctx, PortOptions{BackupPort: new(0), Hairpin: new(false)}); err != nil {
		t.Fatal(err)
	}
	if p := showPort(t, ns, "a"); p["backup_port"] != nil || p["hairpin"] != false || p["isolated"] != true {
		t.Errorf("after a change: %v", p)
	}
}

// Settings that this library knows and the running kernel may not: read back by
// an independent decoder, as ip(8) may not know them either.
func TestSetPortNewerSettings(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, c := range []struct {
		name         string
		major, minor int
		o            PortOptions
		ok           func(*driver.BridgePort) bool
		raw          uint16
	}{
		{"EHTHostsLimit", 5, 12, PortOptions{EHTHostsLimit: new(99)}, nil, unix.IFLA_BRPORT_MCAST_EHT_HOSTS_LIMIT},
		{"Locked", 5, 18, PortOptions{Locked: new(true)}, func(p *driver.BridgePort) bool { return *p.Locked != 0 }, 0},
		{"MAB", 6, 2, PortOptions{Locked: new(true), MAB: new(true)}, func(p *driver.BridgePort) bool { return *p.Mab != 0 && *p.Locked != 0 }, 0},
		{"MaxGroups", 6, 3, PortOptions{MaxGroups: new(99)}, nil, unix.IFLA_BRPORT_MCAST_MAX_GROUPS},
		{"NeighbourVLANSuppress", 6, 4, PortOptions{NeighbourVLANSuppress: new(true)}, func(p *driver.BridgePort) bool { return *p.NeighVlanSuppress != 0 }, 0},
		{"BackupNextHop", 6, 6, PortOptions{BackupNextHop: new(uint32(99))}, func(p *driver.BridgePort) bool { return *p.BackupNhid == 99 }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			_, a, _ := twoPorts(t, ns)
			before := showPort(t, ns, "a")
			both := c.o
			both.Hairpin = new(true)
			err := a.SetPort(ctx, both)
			if err != nil {
				wantErr(t, err, errors.ErrUnsupported, c.name)
				after := showPort(t, ns, "a")
				for _, k := range []string{"forward_delay_timer", "hold_timer", "message_age_timer"} {
					delete(before, k)
					delete(after, k)
				}
				if !reflect.DeepEqual(before, after) {
					t.Errorf("after a failure the port is\n%v, was\n%v", after, before)
				}
			}
			testutil.NeedKernel(t, c.major, c.minor, "bridge port setting "+c.name, err)
			data := rawPort(t, ns, a.Index)
			if c.raw != 0 {
				var got uint32
				for w := nl.Walk(data); w.Next(); {
					if w.Type() == c.raw {
						got = w.U32()
					}
				}
				if got != 99 {
					t.Errorf("the kernel shows %d", got)
				}
				return
			}
			var p driver.BridgePort
			ad, err := netlink.NewAttributeDecoder(data)
			if err == nil {
				err = p.Decode(ad)
			}
			if err != nil || !c.ok(&p) {
				t.Errorf("the kernel shows %+v, %v", p, err)
			}
		})
	}
}

// rawPort returns the bridge's attributes of a port, fetched without the library.
func rawPort(t testing.TB, ns *netns.NS, index int) (data []byte) {
	t.Helper()
	c, err := ns.DialNetlink(context.Background(), unix.NETLINK_ROUTE, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request},
		Data:   appendIfInfo(nil, index, 0, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	ad, err := netlink.NewAttributeDecoder(msgs[0].Data[unix.SizeofIfInfomsg:])
	if err != nil {
		t.Fatal(err)
	}
	for ad.Next() {
		if ad.Type() != unix.IFLA_LINKINFO {
			continue
		}
		ad.Nested(func(in *netlink.AttributeDecoder) error {
			for in.Next() {
				if in.Type() == unix.IFLA_INFO_SLAVE_DATA {
					data = in.Bytes()
				}
			}
			return nil
		})
	}
	return data
}

func TestSetPortWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	br, a, _ := twoPorts(t, ns)
	out := mustCreate(t, ns, Spec{Name: "out", Kind: Veth{Peer: Spec{Name: "outp"}}})
	before, err := a.Port(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []int{out.Index, 9999} {
		err = a.SetPort(ctx, PortOptions{Hairpin: new(true), Cost: new(9), MulticastRouter: new(MulticastRouterNever), BackupPort: new(index)})
		if err == nil {
			t.Fatalf("a backup port outside the bridge (index %d) was taken", index)
		}
		after, err := a.Port(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before.PortOptions, after.PortOptions) {
			t.Errorf("after %v the port is %+v, was %+v", err, showPort(t, ns, "a"), before)
		}
	}
	wantErr(t, out.SetPort(ctx, PortOptions{Hairpin: new(true)}), os.ErrInvalid, "link out", "not the port of a bridge")
	wantErr(t, br.SetPort(ctx, PortOptions{Hairpin: new(true)}), os.ErrInvalid, "link br0")
	_, err = out.Port(ctx)
	wantErr(t, err, os.ErrInvalid, "link.Port link out")
	if err := a.SetDown(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, a.SetPort(ctx, PortOptions{State: new(PortForwarding)}), unix.ENETDOWN, "without a carrier cannot be forwarding")
	if err := a.SetPort(ctx, PortOptions{}); err != nil {
		t.Error(err)
	}
	if err := out.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, out.SetPort(ctx, PortOptions{Hairpin: new(true)}), os.ErrNotExist)
	_, err = out.Port(ctx)
	wantErr(t, err, os.ErrNotExist)
}

func TestSetPortRefuses(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	lo, err := Get(context.Background(), ns, "lo")
	if err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]PortOptions{
		"Priority 64":              {Priority: new(64)},
		"Cost 0":                   {Cost: new(0)},
		"Cost 65536":               {Cost: new(65536)},
		"EHTHostsLimit 0":          {EHTHostsLimit: new(0)},
		"MaxGroups -1":             {MaxGroups: new(-1)},
		"BackupPort -1":            {BackupPort: new(-1)},
		"State 5":                  {State: new(PortState(5))},
		"MulticastRouter 4":        {MulticastRouter: new(MulticastRouter(4))},
		"GroupForwardMask 0x4":     {GroupForwardMask: new(uint16(4))},
		"not the port of a bridge": {Hairpin: new(true)},
	} {
		wantErr(t, lo.SetPort(context.Background(), o), os.ErrInvalid, want)
	}
	wantErr(t, Link{}.SetPort(context.Background(), PortOptions{}), os.ErrInvalid, "zero value")
}

// rtnetlink's encoder is an independent one.
func TestSetPortBytesEqualIndependentEncoder(t *testing.T) {
	t.Parallel()
	on := new(driver.BridgeEnable(1))
	off := new(driver.BridgeEnable(0))
	for _, c := range []struct {
		ours   PortOptions
		theirs driver.BridgePort
	}{
		{PortOptions{}, driver.BridgePort{}},
		{PortOptions{State: new(PortForwarding), Priority: new(3), Cost: new(70000 / 2), BackupPort: new(5)},
			driver.BridgePort{State: new(driver.BridgePortState(3)), Priority: new(uint16(3)), Cost: new(uint32(35000)), BackupPort: new(uint32(5))}},
		{PortOptions{Hairpin: new(true), Guard: new(true), RootBlock: new(true), FastLeave: new(true), Learning: new(false), UnicastFlood: new(false)},
			driver.BridgePort{Mode: on, Guard: on, Protect: on, FastLeave: on, Learning: off, UnicastFlood: off}},
		{PortOptions{ProxyARP: new(true), ProxyARPWiFi: new(true), MulticastRouter: new(MulticastRouterAlways), MulticastFlood: new(false), MulticastToUnicast: new(true)},
			driver.BridgePort{ProxyArp: on, ProxyArpWifi: on, MulticastRouter: new(uint8(2)), McastFlood: off, McastToUcast: on}},
		{PortOptions{VLANTunnel: new(true), BroadcastFlood: new(false), GroupForwardMask: new(uint16(8)), NeighbourSuppress: new(true), Isolated: new(true)},
			driver.BridgePort{VlanTunnel: on, BcastFlood: off, GroupFwdMask: new(uint16(8)), NeighSuppress: on, Isolated: on}},
		{PortOptions{Locked: new(true), MAB: new(true), NeighbourVLANSuppress: new(true), BackupNextHop: new(uint32(77))},
			driver.BridgePort{Locked: on, Mab: on, NeighVlanSuppress: on, BackupNhid: new(uint32(77))}},
	} {
		ae := netlink.NewAttributeEncoder()
		if err := c.theirs.Encode(ae); err != nil {
			t.Fatal(err)
		}
		want, err := ae.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got := appendPortOptions(nil, &c.ours)
		if !sameAttrs(got, want, 0) {
			t.Errorf("%+v\n got %x\nwant %x", c.ours, got, want)
		}
	}
}

// Recorded from "bridge link set dev a0 hairpin on isolated on cost 7" of
// iproute2 6.1, on a little-endian machine.
func TestSetPortBytesEqualRecorded(t *testing.T) {
	t.Parallel()
	want := hexBytes(t, `
		07000000 04000000 00000000 00000000
		1c00 0c80 0500 0400 01000000 0800 0300 07000000 0500 2100 01000000`)
	r := setPort(4, &PortOptions{Hairpin: new(true), Isolated: new(true), Cost: new(7)})
	if r.Type != unix.RTM_SETLINK || r.Flags != 0 || !sameNested(r.Body, want, unix.SizeofIfInfomsg) {
		t.Errorf("type %d\n got %x\nwant %x", r.Type, r.Body, want)
	}
}

func FuzzDecodePort(f *testing.F) {
	full := PortOptions{Hairpin: new(true), Cost: new(1), BackupPort: new(9), State: new(PortForwarding)}
	f.Add(appendPortOptions(nil, &full))
	f.Add(nl.AppendU64(nl.AppendU16(nil, unix.IFLA_BRPORT_NO, 3), unix.IFLA_BRPORT_HOLD_TIMER, 100))
	f.Add([]byte{5, 0, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Port
		if decodePort(&p, b) != nil {
			return
		}
		// What was read encodes to what reads the same.
		var q Port
		if err := decodePort(&q, appendPortOptions(nil, &p.PortOptions)); err != nil || !reflect.DeepEqual(p.PortOptions, q.PortOptions) {
			t.Errorf("%+v became %+v, %v", p.PortOptions, q.PortOptions, err)
		}
	})
}

func TestDecodePortAllocs(t *testing.T) {
	b := bytes.Clone(appendPortOptions(nil, &PortOptions{Hairpin: new(true), Cost: new(1), Isolated: new(true), State: new(PortForwarding), BackupNextHop: new(uint32(1))}))
	var p Port
	if n := allocs.PerRun(t, 100, func() { _ = decodePort(&p, b) }); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}
