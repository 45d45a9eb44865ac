package rtnl_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	. "github.com/boxwire/boxwire/internal/rtnl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestLinks(t *testing.T) {
	t.Parallel()
	host, boxes := netnstest.Bridge(t, 1)
	ns := host.NS
	testutil.Run(t, ns, "ip", "link", "set", host.Link, "mtu", "1400")
	bridge, err := LinkByName(t.Context(), ns, host.Link)
	if err != nil {
		t.Fatal(err)
	}
	if bridge.Kind != "bridge" || bridge.MTU != 1400 || len(bridge.MAC) != 6 || bridge.Flags&unix.IFF_UP == 0 || bridge.IsPort() || bridge.IsLoopback() {
		t.Errorf("%+v", bridge)
	}
	links, err := Links(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	var want []struct {
		Ifindex int
		Ifname  string
		MTU     int
		Address string
		Master  string
		Info    struct {
			Kind  string `json:"info_kind"`
			Slave string `json:"info_slave_kind"`
		} `json:"linkinfo"`
	}
	testutil.JSON(t, ns, &want, "ip", "-j", "-d", "link")
	for i, w := range want {
		l := links[i]
		master := ""
		if at := slices.IndexFunc(links, func(m Link) bool { return m.Index == l.Master }); at >= 0 {
			master = links[at].Name
		}
		if l.Index != w.Ifindex || l.Name != w.Ifname || int(l.MTU) != w.MTU || l.MAC.String() != w.Address || l.Kind != w.Info.Kind || l.PortKind != w.Info.Slave || master != w.Master {
			t.Errorf("%+v, want %+v", l, w)
		}
		if l.IsPort() != (w.Master != "") || l.IsLoopback() != (w.Ifname == "lo") || (l.PeerNSID != nil) != (w.Info.Kind == "veth") {
			t.Errorf("%+v", l)
		}
	}
	port := links[slices.IndexFunc(links, func(l Link) bool { return l.IsPort() })]
	testutil.Run(t, ns, "ip", "link", "set", port.Name, "type", "bridge_slave", "isolated", "on", "hairpin", "on")
	if l, err := LinkByIndex(t.Context(), ns, port.Index); err != nil || !l.Isolated || !l.Hairpin {
		t.Errorf("%+v, %v", l, err)
	}
	for _, on := range []bool{true, false} {
		v := map[bool]string{true: "1", false: "0"}[on]
		if err := errors.Join(ns.SetSysctl(t.Context(), "net/ipv4/conf/"+host.Link+"/forwarding", v), ns.SetSysctl(t.Context(), "net/ipv4/conf/"+host.Link+"/route_localnet", v)); err != nil {
			t.Fatal(err)
		}
		l, err := LinkByName(t.Context(), ns, host.Link)
		if err != nil || l.IPv4.On(Forwarding) != on || l.IPv4.On(RouteLocalnet) != on {
			t.Errorf("%+v, %v", l.IPv4, err)
		}
	}
	if l := (Link{}); l.IPv4.On(Forwarding) {
		t.Error("a setting of nothing is on")
	}
	if _, err := LinkByName(t.Context(), boxes[0].NS, "none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link that does not exist: %v", err)
	}
}

func TestAddrsRoutesAndNeighbours(t *testing.T) {
	t.Parallel()
	a, b := netnstest.Pair(t)
	ns := a.NS
	link, err := LinkByName(t.Context(), ns, a.Link)
	if err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "ip", "addr", "add", "192.0.2.1", "peer", "192.0.2.2/32", "dev", a.Link)
	testutil.Run(t, ns, "ip", "route", "add", "198.51.100.0/24", "metric", "5", "table", "700", "nexthop", "via", b.Addr4.Addr().String(), "nexthop", "dev", a.Link)
	testutil.Run(t, ns, "ip", "route", "add", "default", "via", b.Addr4.Addr().String())
	testutil.Run(t, ns, "ip", "route", "add", "blackhole", "203.0.113.0/24")
	addrs, err := Addrs(t.Context(), ns, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Addr{
		{Link: link.Index, Local: a.Addr4, Flags: unix.IFA_F_PERMANENT},
		{Link: link.Index, Local: netip.MustParsePrefix("192.0.2.1/32"), Flags: unix.IFA_F_PERMANENT},
	} {
		if !slices.Contains(addrs, want) {
			t.Errorf("%v, without %v", addrs, want)
		}
	}
	routes, err := Routes(t.Context(), ns, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	find := func(dst string) (r Route) {
		t.Helper()
		at := slices.IndexFunc(routes, func(r Route) bool { return r.Dst.String() == dst })
		if at < 0 {
			t.Fatalf("%v, without %v", routes, dst)
		}
		return routes[at]
	}
	if r := find("0.0.0.0/0"); r.Type != unix.RTN_UNICAST || r.Gateway != b.Addr4.Addr() || r.Link() != link.Index || r.Multi || r.Table != unix.RT_TABLE_MAIN {
		t.Errorf("%+v", r)
	}
	if r := find("198.51.100.0/24"); !r.Multi || len(r.Links) != 2 || r.Link() != link.Index || r.Table != 700 || r.Priority != 5 {
		t.Errorf("%+v", r)
	}
	if r := find("203.0.113.0/24"); r.Type != unix.RTN_BLACKHOLE || r.Link() != 0 {
		t.Errorf("%+v", r)
	}
	r, err := Lookup(t.Context(), ns, netip.MustParseAddr("8.8.8.8"), a.Addr4.Addr())
	if err != nil || r.Gateway != b.Addr4.Addr() || r.Link() != link.Index || r.Type != unix.RTN_UNICAST {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := Lookup(t.Context(), ns, a.Addr4.Addr(), netip.Addr{}); err != nil || r.Type != unix.RTN_LOCAL {
		t.Errorf("%+v, %v", r, err)
	}
	testutil.Run(t, ns, "ip", "neigh", "replace", "192.0.2.2", "lladdr", "02:00:00:00:00:01", "dev", a.Link, "nud", "permanent")
	n, err := NeighbourOf(t.Context(), ns, link.Index, netip.MustParseAddr("192.0.2.2"))
	if err != nil || n.Link != link.Index || n.MAC.String() != "02:00:00:00:00:01" || n.State != unix.NUD_PERMANENT || n.Addr.String() != "192.0.2.2" {
		t.Errorf("%+v, %v", n, err)
	}
	all, err := Neighbours(t.Context(), ns)
	if err != nil || !slices.ContainsFunc(all, func(o Neighbour) bool { return o.Addr == n.Addr && o.State == n.State }) {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := NeighbourOf(t.Context(), ns, link.Index, netip.MustParseAddr("192.0.2.9")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an entry that does not exist: %v", err)
	}
}

// What rtnetlink gets wrong, a newer kernel's longer attributes among it, is kept from it.
func TestDecodeLinkTakesWhatRtnetlinkRefuses(t *testing.T) {
	t.Parallel()
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], 7)
	b = nl.AppendAttr(b, unix.IFLA_STATS64, make([]byte, 1000))
	b = nl.AppendAttr(b, unix.IFLA_ADDRESS, []byte{1})
	b = nl.AppendAttr(b, unix.IFLA_MTU, binary.NativeEndian.AppendUint64(nil, 0xffff_ffff<<32|1500))
	b = nl.AppendString(b, unix.IFLA_IFNAME, "eth0")
	if l, err := DecodeLink(b); binary.NativeEndian.Uint16([]byte{1, 0}) == 1 && (err != nil || l.Index != 7 || l.Name != "eth0" || l.MTU != 1500 || len(l.MAC) != 1) {
		t.Errorf("%+v, %v", l, err)
	}
	for what, b := range map[string][]byte{
		"no header":       {1, 2, 3},
		"a short MTU":     nl.AppendAttr(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_MTU, []byte{1, 2}),
		"half an address": append(make([]byte, unix.SizeofIfInfomsg), 9, 0, 1, 0),
	} {
		if l, err := DecodeLink(b); err == nil {
			t.Errorf("%s: %+v", what, l)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(append(make([]byte, unix.SizeofIfAddrmsg), 8, 0, unix.IFA_LOCAL, 0, 10, 1, 1, 1))
	f.Add(append([]byte{unix.AF_INET, 24, 0, 0, 0, 0, 0, 0}, 8, 0, unix.IFA_ADDRESS, 0, 10, 1, 1, 2, 8, 0, unix.IFA_LOCAL, 0, 10, 1, 1, 1))
	f.Add(append([]byte{unix.AF_INET, 24, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0}, 8, 0, unix.RTA_DST, 0, 10, 1, 1, 0, 12, 0, unix.RTA_MULTIPATH, 0, 8, 0, 0, 0, 1, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := DecodeAddr(b); err == nil && a.Local.Addr().IsValid() && a.Local.Addr().BitLen() != 32 && a.Local.Addr().BitLen() != 128 {
			t.Errorf("decoded to %v", a)
		}
		DecodeLink(b)
		DecodeRoute(b)
		DecodeNeighbour(b)
	})
}
