package link

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// kindTests are links with every option that the oldest kernel has, or with those
// of a newer one, and what ip(8) shows of their options.
var kindTests = []struct {
	name         string
	major, minor int
	feature      string
	spec         Spec // Parent and Underlay 1 stand for the index of a link
	want         string
}{
	{"bridge", 5, 4, "bridge", Spec{Kind: Bridge{
		ForwardDelay: new(4 * time.Second), HelloTime: 3 * time.Second, MaxAge: 10 * time.Second, AgeingTime: new(120 * time.Second),
		STP: new(true), Priority: new(uint16(4096)), GroupForwardMask: 0x4008, GroupAddress: hw("01:80:c2:00:00:04"),
		MulticastSnooping: new(true), MulticastRouter: new(MulticastRouterAlways), QueryUseIfAddr: new(true), MulticastQuerier: new(true),
		MulticastHashMax: 1024, LastMemberCount: 3, StartupQueryCount: 4, LastMemberInterval: 2 * time.Second,
		MembershipInterval: 10 * time.Second, QuerierInterval: 20 * time.Second, QueryInterval: 30 * time.Second,
		QueryResponseInterval: 5 * time.Second, StartupQueryInterval: 6 * time.Second,
		MulticastStats: new(true), IGMPVersion: 3, MLDVersion: 2, LinkLocalLearn: new(false),
	}}, `{"forward_delay":400,"hello_time":300,"max_age":1000,"ageing_time":12000,"stp_state":1,"priority":4096,"group_fwd_mask":"0x4008",
		"group_addr":"01:80:c2:00:00:04","mcast_snooping":1,"mcast_router":2,"mcast_query_use_ifaddr":1,"mcast_querier":1,"mcast_hash_max":1024,
		"mcast_last_member_cnt":3,"mcast_startup_query_cnt":4,"mcast_last_member_intvl":200,"mcast_membership_intvl":1000,"mcast_querier_intvl":2000,
		"mcast_query_intvl":3000,"mcast_query_response_intvl":500,"mcast_startup_query_intvl":600,"mcast_stats_enabled":1,"mcast_igmp_version":3,
		"mcast_mld_version":2,"no_linklocal_learn":1}`},
	{"bridge with firewall", 5, 4, "bridge", Spec{Kind: Bridge{CallIPTables: new(true), CallIP6Tables: new(true), CallARPTables: new(true)}},
		`{"nf_call_iptables":1,"nf_call_ip6tables":1,"nf_call_arptables":1}`},
	{"bridge with VLANs", 5, 4, "CONFIG_BRIDGE_VLAN_FILTERING", Spec{Kind: Bridge{
		VLANProtocol: VLAN8021AD, VLANDefaultPVID: new(uint16(7)), VLANFiltering: new(true), VLANStats: new(true), VLANStatsPerPort: new(true),
	}}, `{"vlan_protocol":"802.1ad","vlan_default_pvid":7,"vlan_filtering":1,"vlan_stats_enabled":1,"vlan_stats_per_port":1}`},
	{"bridge with VLAN snooping", 5, 15, "CONFIG_BRIDGE_VLAN_FILTERING", Spec{Kind: Bridge{VLANFiltering: new(true), MulticastVLANSnooping: new(true)}},
		`{"mcast_vlan_snooping":1}`},
	{"bridge with MST", 5, 18, "spanning trees by VLAN", Spec{Kind: Bridge{MST: new(true)}}, ``},
	{"bridge with MDB offload notes", 6, 16, "MDB offload notes", Spec{Kind: Bridge{MDBOffloadFail: new(true)}}, ``},
	{"bridge with local addresses once", 6, 18, "fdb_local_vlan_0", Spec{Kind: Bridge{LocalVLAN0: new(true)}}, ``},
	{"bridge with limited learning", 6, 7, "fdb_max_learned", Spec{Kind: Bridge{MaxLearned: new(uint32(100))}}, ``},
	{"bridge with STP mode", 7, 1, "stp_mode", Spec{Kind: Bridge{STPMode: new(BridgeSTPKernel)}}, ``},
	{"dummy", 5, 4, "dummy", Spec{Kind: Dummy{}}, ``},
	{"ifb", 5, 4, "ifb", Spec{Kind: IFB{}}, ``},
	{"vlan", 5, 4, "VLANs", Spec{Parent: Ref{Index: 1}, Kind: VLAN{
		ID: 100, Protocol: VLAN8021AD, ReorderHeader: new(false), LooseBinding: new(true),
		IngressQoS: []VLANQoS{{1, 2}, {3, 4}}, EgressQoS: []VLANQoS{{5, 6}},
	}}, `{"protocol":"802.1ad","id":100,"flags":["LOOSE_BINDING"],"ingress_qos":[{"from":1,"to":2},{"from":3,"to":4}],"egress_qos":[{"from":5,"to":6}]}`},
	{"vlan with GVRP", 5, 4, "GVRP", Spec{Parent: Ref{Index: 1}, Kind: VLAN{ID: 4094, GVRP: new(true), MVRP: new(true)}}, `{"id":4094,"flags":["REORDER_HDR","GVRP","MVRP"]}`},
	{"macvlan", 5, 4, "macvlan", Spec{Parent: Ref{Index: 1}, Kind: Macvlan{Mode: MacvlanBridge}}, `{"mode":"bridge"}`},
	{"macvlan with queue", 5, 11, "bcqueuelen", Spec{Parent: Ref{Index: 1}, Kind: Macvlan{Mode: MacvlanPrivate, BroadcastQueue: 2000}}, `{"mode":"private","bcqueuelen":2000}`},
	{"macvlan with cutoff", 6, 4, "bclim", Spec{Parent: Ref{Index: 1}, Kind: Macvlan{BroadcastCutoff: new(int32(-1))}}, `{"mode":"vepa"}`},
	{"macvlan passthru", 5, 4, "macvlan", Spec{Parent: Ref{Index: 1}, Kind: Macvlan{Mode: MacvlanPassthru, NoPromisc: true}}, `{"mode":"passthru","nopromisc":true}`},
	{"macvlan source", 5, 4, "macvlan", Spec{Parent: Ref{Index: 1}, Kind: Macvlan{
		Mode: MacvlanSource, Sources: []net.HardwareAddr{hw("02:00:00:00:00:01"), hw("02:00:00:00:00:02")},
	}}, `{"mode":"source","macaddr_count":2}`},
	{"macvtap", 5, 4, "macvtap", Spec{Parent: Ref{Index: 1}, Kind: Macvtap{Macvlan{Mode: MacvlanVEPA}}}, `{"mode":"vepa"}`},
	{"ipvlan", 5, 4, "ipvlan", Spec{Parent: Ref{Index: 1}, Kind: IPVLAN{Mode: new(IPVLANL2), Private: true}}, `{"mode":"l2"}`},
	{"ipvlan VEPA", 5, 4, "ipvlan", Spec{Parent: Ref{Index: 1}, Kind: IPVLAN{Mode: new(IPVLANL3), VEPA: true}}, `{"mode":"l3"}`},
	{"ipvtap", 5, 4, "ipvtap", Spec{Parent: Ref{Index: 1}, Kind: IPVTAP{IPVLAN{Mode: new(IPVLANL3)}}}, ``},
	{"vxlan", 5, 4, "vxlan", Spec{Kind: VXLAN{
		ID: new(uint32(42)), Remote: addr("192.0.2.1"), Local: addr("192.0.2.2"), Underlay: Ref{Index: 1}, TTL: 7, TOS: 16, DF: TunnelDFSet,
		Port: 4789, SourcePorts: PortRange{1000, 2000}, Learning: new(false), Proxy: true, RouteShortCircuit: true, L2Miss: true, L3Miss: true,
		Ageing: new(time.Minute), MaxAddresses: 500, UDPChecksum: new(true), UDPZeroChecksum6Tx: true, UDPZeroChecksum6Rx: true,
		RemoteChecksumTx: true, RemoteChecksumRx: true, GBP: true,
	}}, `{"id":42,"remote":"192.0.2.1","local":"192.0.2.2","link":"parent","ttl":7,"tos":"0x10","df":"set","port":4789,"port_range":{"low":1000,"high":2000},
		"learning":false,"proxy":true,"rsc":true,"l2miss":true,"l3miss":true,"ageing":60,"limit":500,"udp_csum":true,"udp_zero_csum6_tx":true,
		"udp_zero_csum6_rx":true,"remcsum_tx":true,"remcsum_rx":true,"gbp":true}`},
	{"vxlan over IPv6", 5, 4, "vxlan", Spec{Kind: VXLAN{
		ID: new(uint32(42)), Remote: addr("ff05::1"), Local: addr("2001:db8::1"), Underlay: Ref{Index: 1}, TTLInherit: true, TOS: 1, FlowLabel: 77, DF: TunnelDFInherit,
	}}, `{"group6":"ff05::1","local6":"2001:db8::1","tos":"0x1","label":"0x4d","df":"inherit"}`},
	{"vxlan external", 5, 4, "vxlan", Spec{Kind: VXLAN{External: true, GPE: true, Port: 4790}}, `{"external":true,"gpe":true,"port":4790}`},
	{"vxlan with VNI filter", 5, 18, "vnifilter", Spec{Kind: VXLAN{External: true, VNIFilter: true}}, ``},
	{"vxlan without bypass", 6, 5, "localbypass", Spec{Kind: VXLAN{ID: new(uint32(7)), LocalBypass: new(false)}}, ``},
	{"vxlan with label policy", 6, 8, "label policy", Spec{Kind: VXLAN{ID: new(uint32(7)), Local: addr("2001:db8::1"), FlowLabelInherit: true}}, ``},
	{"vxlan with multicast routes", 6, 17, "mc_route", Spec{Kind: VXLAN{ID: new(uint32(7)), MulticastRoute: new(true)}}, ``},
	{"geneve", 5, 4, "geneve", Spec{Kind: Geneve{
		ID: new(uint32(42)), Remote: addr("192.0.2.1"), TTL: 7, TOS: 16, DF: TunnelDFSet, Port: 6082, UDPChecksum: new(true),
	}}, `{"id":42,"remote":"192.0.2.1","ttl":7,"tos":"0x10","df":"set","port":6082,"udp_csum":true}`},
	{"geneve over IPv6", 5, 4, "geneve", Spec{Kind: Geneve{
		ID: new(uint32(42)), Remote: addr("2001:db8::1"), TTLInherit: true, FlowLabel: 77, UDPZeroChecksum6Tx: true, UDPZeroChecksum6Rx: true,
	}}, `{"remote6":"2001:db8::1","label":"0x4d","udp_zero_csum6_tx":true,"udp_zero_csum6_rx":true}`},
	{"geneve external", 5, 4, "geneve", Spec{Kind: Geneve{External: true}}, `{"external":true}`},
	{"geneve with inner protocol", 6, 0, "inner protocol", Spec{Kind: Geneve{External: true, InnerProtoInherit: true}}, ``},
	{"geneve with source ports", 6, 16, "source ports", Spec{Kind: Geneve{External: true, SourcePorts: PortRange{1000, 2000}}}, ``},
	{"vrf", 5, 4, "vrf", Spec{Kind: VRF{Table: 100}}, `{"table":100}`},
	{"bond", 5, 4, "bond", Spec{Kind: Bond{
		Mode: new(BondActiveBackup), MIIMonitor: new(100 * millis), UpDelay: new(200 * millis), DownDelay: new(300 * millis), PeerNotifyDelay: new(400 * millis),
		PrimaryReselect: new(BondReselectBetter), FailOverMAC: new(BondMACActive), HashPolicy: new(BondHashL34),
		ResendIGMP: new(uint32(5)), PeerNotify: new(uint8(6)), AllPortsActive: new(true), MinLinks: new(uint32(2)), LearnInterval: 3 * time.Second,
	}}, `{"mode":"active-backup","miimon":100,"updelay":200,"downdelay":300,"peer_notify_delay":400,"primary_reselect":"better","fail_over_mac":"active",
		"xmit_hash_policy":"layer3+4","resend_igmp":5,"num_peer_notif":6,"all_slaves_active":1,"min_links":2,"lp_interval":3}`},
	{"bond asking by ARP", 5, 4, "bond", Spec{Kind: Bond{
		Mode: new(BondActiveBackup), ARPInterval: new(100 * millis), ARPTargets: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")},
		ARPValidate: new(BondARPValidateActive), ARPAllTargets: new(true),
	}}, `{"arp_interval":100,"arp_ip_target":["192.0.2.1","192.0.2.2"],"arp_validate":"active","arp_all_targets":"all"}`},
	{"bond asking by IPv6", 5, 18, "ns_ip6_target", Spec{Kind: Bond{
		Mode: new(BondActiveBackup), ARPInterval: new(100 * millis), NSTargets: []netip.Addr{addr("2001:db8::1")}, MissedMax: 7,
	}}, ``},
	{"bond round robin", 5, 4, "bond", Spec{Kind: Bond{Mode: new(BondRoundRobin), PacketsPerPort: new(uint32(4))}}, `{"mode":"balance-rr","packets_per_slave":4}`},
	{"bond with LACP", 5, 4, "bond", Spec{Kind: Bond{
		Mode: new(Bond8023AD), LACPFast: new(true), ADSelect: new(BondADBandwidth), ADUserPortKey: new(uint16(8)), ADActorPriority: 9,
		ADActorSystem: hw("02:00:00:00:00:01"),
	}}, `{"mode":"802.3ad","ad_lacp_rate":"fast","ad_select":"bandwidth"}`},
	{"bond with passive LACP", 5, 15, "lacp_active", Spec{Kind: Bond{Mode: new(Bond8023AD), LACPActive: new(false)}}, ``},
	{"bond with uncoupled control", 6, 9, "coupled_control", Spec{Kind: Bond{Mode: new(Bond8023AD), CoupledControl: new(false)}}, ``},
	{"bond with broadcast neighbours", 6, 17, "broadcast_neighbor", Spec{Kind: Bond{Mode: new(Bond8023AD), BroadcastNeigh: new(true)}}, ``},
	{"tun", 5, 4, "tun", Spec{Kind: Tun{Persist: true, Owner: new(uint32(7)), Group: new(uint32(8)), PacketInfo: true}},
		`{"type":"tun","pi":true,"vnet_hdr":false,"multi_queue":false,"persist":true}`},
	{"tap", 5, 4, "tun", Spec{Kind: Tun{Tap: true, Persist: true, MultiQueue: true, VirtioHeader: true}},
		`{"type":"tap","pi":false,"vnet_hdr":true,"multi_queue":true,"persist":true}`},
	{"netkit", 6, 7, "netkit", Spec{Kind: Netkit{
		Mode: new(NetkitL2), Policy: new(NetkitBlackhole), PeerPolicy: new(NetkitBlackhole), Peer: Spec{Name: "peer0"},
	}}, ``},
	{"netkit without scrubbing", 6, 13, "netkit scrub", Spec{Kind: Netkit{Scrub: new(NetkitScrubNone), PeerScrub: new(NetkitScrubNone), Peer: Spec{Name: "peer0"}}}, ``},
	{"netkit with room", 6, 14, "netkit headroom", Spec{Kind: Netkit{Headroom: 32, Tailroom: 16, Peer: Spec{Name: "peer0"}}}, ``},
	{"wireguard", 5, 6, "wireguard", Spec{Kind: WireGuard{}}, ``},
	{"gre as a raw kind", 5, 4, "gre", Spec{Kind: Other{Name: "gretap", Data: []Attr{{6, []byte{192, 0, 2, 2}}, {7, []byte{192, 0, 2, 1}}}}},
		`{"remote":"192.0.2.1","local":"192.0.2.2"}`},
}

func TestKindsWithAllOptionsAgreeWithIP(t *testing.T) {
	t.Parallel()
	for _, c := range kindTests {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if strings.Contains(c.name, "IPv6") {
				netnstest.NeedIPv6(t)
			}
			ctx := context.Background()
			ns := netnstest.New(t)
			parent := mustCreate(t, ns, Spec{Name: "parent", Kind: Veth{Peer: Spec{Name: "other"}}})
			s := c.spec
			s.Name = "test0"
			if s.Parent != (Ref{}) {
				s.Parent = parent.Ref()
			}
			switch k := s.Kind.(type) {
			case VXLAN:
				if k.Underlay != (Ref{}) {
					k.Underlay = parent.Ref()
				}
				s.Kind = k
			case Tun:
				if k.Owner != nil {
					k.Owner, k.Group = someID(t, *k.Owner), someID(t, *k.Group)
				}
				s.Kind = k
			}
			l, err := Create(ctx, ns, s)
			if err != nil {
				onlyThese(t, ns, "lo", "parent", "other")
			}
			if s.Kind.name() == "tun" {
				needTun(t, err)
			}
			testutil.NeedKernel(t, c.major, c.minor, c.feature, err)
			if l.Kind != s.Kind.name() || l.ParentIndex != s.Parent.Index {
				t.Errorf("Create returned %+v", l)
			}
			d, err := l.Details(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if missing := lacks(shown(t, s.Kind), d.Spec.Kind); missing != "" {
				t.Errorf("Details lack %s:\n got %+v\nwant %+v", missing, d.Spec.Kind, s.Kind)
			}
			if c.want == "" {
				return
			}
			got, want := ipInfo(t, ns, "test0"), map[string]any{}
			if err := json.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			for k, v := range want {
				if !reflect.DeepEqual(got[k], v) {
					t.Errorf("ip shows %s as %v, want %v", k, got[k], v)
				}
			}
			if t.Failed() {
				t.Logf("ip shows %v", got)
			}
		})
	}
}

// lacks returns the path of the first field that is set in want and not the same
// in got. Peers are ignored.
func lacks(want, got any) string { return lacksField(reflect.ValueOf(want), reflect.ValueOf(got), "") }

// firstUsers says whether the test runs in the first user namespace.
func firstUsers(t *testing.T) bool {
	t.Helper()
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(ids))[2] == "4294967295"
}

// shown is what the kernel shows of a kind.
func shown(t *testing.T, k Kind) Kind {
	switch k := k.(type) {
	case VXLAN:
		k.MulticastRoute = nil
		return k
	case Bond:
		if !firstUsers(t) {
			k.ADUserPortKey, k.ADActorPriority, k.ADActorSystem = nil, 0, nil
		}
		return k
	}
	return k
}

func lacksField(want, got reflect.Value, path string) string {
	if want.IsZero() || path != "" && want.Type() == reflect.TypeFor[Spec]() {
		return ""
	}
	if !got.IsValid() || want.Type() != got.Type() {
		return path + " of type " + want.Type().String()
	}
	if want.Type() == reflect.TypeFor[Ref]() { // its namespace is not read
		want, got, path = want.FieldByName("Index"), got.FieldByName("Index"), path+".Index"
	}
	if attrs, ok := want.Interface().([]Attr); ok { // the kernel adds others
		for _, a := range attrs {
			if !slices.ContainsFunc(got.Interface().([]Attr), func(b Attr) bool { return a.Type == b.Type && bytes.Equal(a.Data, b.Data) }) {
				return path
			}
		}
		return ""
	}
	switch want.Kind() {
	case reflect.Interface:
		return lacksField(want.Elem(), got.Elem(), path)
	case reflect.Pointer:
		if got.IsNil() || !reflect.DeepEqual(want.Elem().Interface(), got.Elem().Interface()) {
			return path
		}
		return ""
	case reflect.Struct:
		if want.Type().PkgPath() == "net/netip" {
			break
		}
		for i := range want.NumField() {
			if p := lacksField(want.Field(i), got.Field(i), path+"."+want.Type().Field(i).Name); p != "" {
				return p
			}
		}
		return ""
	}
	if !reflect.DeepEqual(want.Interface(), got.Interface()) {
		return path
	}
	return ""
}

// ipInfo returns the options of a link's kind as ip(8) prints them.
func ipInfo(t testing.TB, ns *netns.NS, name string) map[string]any {
	t.Helper()
	testutil.Witness(t, "ip")
	var list []struct {
		Info struct {
			Data map[string]any `json:"info_data"`
		} `json:"linkinfo"`
	}
	testutil.JSON(t, ns, &list, "ip", "-d", "-j", "link", "show", name)
	if len(list) != 1 {
		t.Fatalf("ip shows %d links %s", len(list), name)
	}
	return list[0].Info.Data
}

// onlyThese fails the test when ns has other links.
func onlyThese(t testing.TB, ns *netns.NS, names ...string) {
	t.Helper()
	links, err := List(context.Background(), ns, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(links)
	if len(links) != len(names) {
		t.Errorf("links %s, want %v", got, names)
	}
}
