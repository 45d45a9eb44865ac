package link

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// goldens are the specs of the messages in testdata/ip.golden, with all options
// that ip(8) knows.
var goldens = map[string]Spec{
	"bridge": {Name: "t0", Kind: Bridge{
		ForwardDelay: new(4 * time.Second), HelloTime: 3 * time.Second, MaxAge: 10 * time.Second, AgeingTime: new(120 * time.Second),
		STP: new(true), Priority: new(uint16(4096)), GroupForwardMask: 0x4008, GroupAddress: hw("01:80:c2:00:00:04"), MaxLearned: new(uint32(100)),
		VLANProtocol: VLAN8021AD, VLANDefaultPVID: new(uint16(7)), VLANFiltering: new(true), VLANStats: new(true), VLANStatsPerPort: new(true),
		MulticastSnooping: new(true), MulticastRouter: new(MulticastRouterAlways), QueryUseIfAddr: new(true), MulticastQuerier: new(true),
		MulticastHashMax: 1024, LastMemberCount: 3, StartupQueryCount: 4, LastMemberInterval: 2 * time.Second,
		MembershipInterval: 10 * time.Second, QuerierInterval: 20 * time.Second, QueryInterval: 30 * time.Second,
		QueryResponseInterval: 5 * time.Second, StartupQueryInterval: 6 * time.Second,
		MulticastStats: new(true), IGMPVersion: 3, MLDVersion: 2, CallIPTables: new(true), CallIP6Tables: new(true), CallARPTables: new(true),
	}},
	"bridge-stp-mode": {Name: "t0", Kind: Bridge{STPMode: new(BridgeSTPKernel)}},
	"bridge-bools": {Name: "t0", Kind: Bridge{
		LinkLocalLearn: new(false), MulticastVLANSnooping: new(true), MST: new(true), MDBOffloadFail: new(true), LocalVLAN0: new(true),
	}},
	"dummy": {Name: "t0", Kind: Dummy{}},
	"ifb":   {Name: "t0", Kind: IFB{}},
	"vlan": {Name: "t0", Parent: Ref{Index: 1}, Kind: VLAN{
		Protocol: VLAN8021AD, ID: 100, ReorderHeader: new(false), GVRP: new(true), MVRP: new(true), LooseBinding: new(true), BridgeBinding: new(true),
		IngressQoS: []VLANQoS{{1, 2}, {3, 4}}, EgressQoS: []VLANQoS{{5, 6}},
	}},
	"macvlan":          {Name: "t0", Parent: Ref{Index: 1}, Kind: Macvlan{Mode: MacvlanBridge, BroadcastQueue: 2000, BroadcastCutoff: new(int32(-1))}},
	"macvlan-passthru": {Name: "t0", Parent: Ref{Index: 1}, Kind: Macvlan{Mode: MacvlanPassthru, NoPromisc: true}},
	"macvlan-source":   {Name: "t0", Parent: Ref{Index: 1}, Kind: Macvlan{Mode: MacvlanSource, NoDst: true}},
	"macvlan-sources":  {Kind: Macvlan{Sources: []net.HardwareAddr{hw("02:00:00:00:00:01"), hw("02:00:00:00:00:02")}}},
	"macvtap":          {Name: "t0", Parent: Ref{Index: 1}, Kind: Macvtap{Macvlan{Mode: MacvlanVEPA}}},
	"ipvlan":           {Name: "t0", Parent: Ref{Index: 1}, Kind: IPVLAN{Mode: new(IPVLANL2), Private: true}},
	"ipvlan-vepa":      {Name: "t0", Parent: Ref{Index: 1}, Kind: IPVLAN{Mode: new(IPVLANL3S), VEPA: true}},
	"ipvtap":           {Name: "t0", Parent: Ref{Index: 1}, Kind: IPVTAP{IPVLAN{Mode: new(IPVLANL3)}}},
	"vxlan": {Name: "t0", Kind: VXLAN{
		ID: new(uint32(42)), Remote: addr("192.0.2.1"), Local: addr("192.0.2.2"), Underlay: Ref{Index: 1}, TTL: 7, TOS: 0x16, DF: TunnelDFSet, FlowLabel: 77,
		Port: 4789, SourcePorts: PortRange{1000, 2000}, Learning: new(false), Proxy: true, RouteShortCircuit: true, L2Miss: true, L3Miss: true,
		Ageing: new(time.Minute), MaxAddresses: 500, UDPChecksum: new(true), UDPZeroChecksum6Tx: true, UDPZeroChecksum6Rx: true,
		RemoteChecksumTx: true, RemoteChecksumRx: true, LocalBypass: new(false), GBP: true, MulticastRoute: new(true),
	}},
	"vxlan6": {Name: "t0", Kind: VXLAN{
		ID: new(uint32(42)), Remote: addr("ff05::1"), Local: addr("2001:db8::1"), Underlay: Ref{Index: 1}, TTLInherit: true, TOS: 1, DF: TunnelDFInherit, Learning: new(true),
	}},
	"vxlan-external": {Name: "t0", Kind: VXLAN{External: true, VNIFilter: true, GPE: true, Port: 4790, Learning: new(false)}},
	"geneve": {Name: "t0", Kind: Geneve{
		ID: new(uint32(42)), Remote: addr("192.0.2.1"), Local: addr("192.0.2.2"), TTL: 7, TOS: 0x16, DF: TunnelDFSet, FlowLabel: 77, Port: 6082,
		UDPChecksum: new(true), UDPZeroChecksum6Tx: true, UDPZeroChecksum6Rx: true, InnerProtoInherit: true,
	}},
	"geneve6":         {Name: "t0", Kind: Geneve{ID: new(uint32(42)), Remote: addr("2001:db8::1"), TTLInherit: true}},
	"geneve-external": {Name: "t0", Kind: Geneve{External: true}},
	"vrf":             {Name: "t0", Kind: VRF{Table: 100}},
	"bond": {Name: "t0", Kind: Bond{
		Mode: new(BondActiveBackup), MIIMonitor: new(100 * millis), UpDelay: new(200 * millis), DownDelay: new(300 * millis), PeerNotifyDelay: new(400 * millis),
		Primary: Ref{Index: 1}, PrimaryReselect: new(BondReselectBetter), FailOverMAC: new(BondMACActive), HashPolicy: new(BondHashL34),
		ResendIGMP: new(uint32(5)), PeerNotify: new(uint8(6)), AllPortsActive: new(true), MinLinks: new(uint32(2)), LearnInterval: 3 * time.Second,
		PacketsPerPort: new(uint32(4)), DynamicBalance: new(true), ActivePort: Ref{Index: 1}, MissedMax: 7,
	}},
	"bond-arp": {Name: "t0", Kind: Bond{
		Mode: new(BondRoundRobin), ARPInterval: new(100 * millis), ARPTargets: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")},
		NSTargets: []netip.Addr{addr("2001:db8::1")}, ARPValidate: new(BondARPValidateActive), ARPAllTargets: new(true),
	}},
	"bond-lacp": {Name: "t0", Kind: Bond{
		Mode: new(Bond8023AD), LACPFast: new(true), LACPActive: new(true), ADSelect: new(BondADBandwidth), ADUserPortKey: new(uint16(8)),
		ADActorPriority: 9, ADActorSystem: hw("02:00:00:00:00:01"), CoupledControl: new(false), BroadcastNeigh: new(true), LACPStrict: new(true),
	}},
	"bondport": {BondPort: BondPort{Queue: new(uint16(3)), Priority: new(int32(-4)), ADActorPriority: new(uint16(5))}},
	"netkit": {Name: "t0", MTU: 1400, Kind: Netkit{
		Mode: new(NetkitL2), Policy: new(NetkitBlackhole), Scrub: new(NetkitScrubNone), PeerPolicy: new(NetkitBlackhole), PeerScrub: new(NetkitScrubNone),
		Peer: Spec{Name: "t1", MTU: 1300, MAC: hw("02:00:00:00:00:02")},
	}},
	"veth":      {Name: "t0", MTU: 1400, TxQueues: 2, RxQueues: 3, Kind: Veth{Peer: Spec{Name: "t1", MTU: 1300, MAC: hw("02:00:00:00:00:02"), TxQueues: 4}}},
	"wireguard": {Name: "t0", Kind: WireGuard{}},
	"common": {
		Name: "t0", MTU: 1400, MAC: hw("02:00:00:00:00:01"), TxQueueLen: new(500), TxQueues: 2, RxQueues: 3,
		GSOMaxSize: 50000, GSOMaxSegs: 40, GROMaxSize: 50001, GSOIPv4MaxSize: 50002, GROIPv4MaxSize: 50003, Group: 7, Kind: Dummy{},
	},
}

// surplus is what ip(8) sends unasked: zeros, which are what the kernel takes
// without them, too.
var surplus = map[string][]string{
	"geneve6":         {"00003=00 ", "00004=00 ", "00011=00000000 "},
	"geneve-external": {"00001=00000000 ", "00003=00 ", "00004=00 ", " 00011=00000000"},
	"ipvtap":          {" 00002=0000"},
	"bondport":        {"00001=bond_slave "}, // a name that the kernel does not look at
}

func TestMessagesEqualThoseOfIP(t *testing.T) {
	t.Parallel()
	seen := 0
	for name, want := range readGolden(t) {
		seen++
		s, ok := goldens[name]
		if !ok {
			t.Errorf("no spec for %s", name)
			continue
		}
		var got []byte
		switch {
		case s.Kind == nil:
			m := message{b: appendIfInfo(nil, 1, 0, 0)}
			set := s.settings()
			m.slave(&set)
			got = m.b
		case s.Name == "":
			m := message{b: appendIfInfo(nil, int(int32(binary.NativeEndian.Uint32(want[4:]))), 0, 0)}
			o := declare(s.Kind)
			m.kind(&o)
			got = m.b
		default:
			ns := new(Spec)
			*ns = s
			if _, err := checkKind(s.Kind, ns); err != nil && !strings.HasSuffix(name, "bond") {
				t.Errorf("%s: %v", name, err)
			}
			got = made(&s, -1).Body
		}
		g, w := canonical(got, unix.SizeofIfInfomsg), canonical(want, unix.SizeofIfInfomsg)
		for _, a := range surplus[name] {
			w = strings.Replace(w, a, "", 1)
		}
		if name == "veth" { // one queue each way, where ip(8) leaves it to the kernel
			if strings.Count(g, " 00032=01000000") != 1 {
				t.Errorf("the peer has not one queue: %s", g)
			}
			g = strings.Replace(g, " 00032=01000000", "", 1)
		}
		if g != w {
			t.Errorf("%s:\n got %s\nwant %s", name, g, w)
		}
	}
	if seen != len(goldens) {
		t.Errorf("%d messages for %d specs", seen, len(goldens))
	}
}

func readGolden(t *testing.T) map[string][]byte {
	t.Helper()
	file, err := os.ReadFile("testdata/ip.golden")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]byte{}
	name := ""
	for line := range strings.Lines(string(file)) {
		line = strings.TrimSpace(line)
		if n, _, ok := strings.Cut(line, ": "); ok || strings.HasPrefix(line, "#") {
			name = n
			continue
		}
		m[name] = hexBytes(t, line)
	}
	return m
}

// canonical writes a link message so that two with the same meaning are equal:
// attributes in the order of their types, no flag that says that they are nested,
// no NUL behind a string.
func canonical(b []byte, header int) string {
	const info, data, slave = unix.IFLA_LINKINFO, unix.IFLA_INFO_DATA, unix.IFLA_INFO_SLAVE_DATA
	kind := ""
	var attrs func(b []byte, path ...uint16) string
	attrs = func(b []byte, path ...uint16) string {
		var list []string
		for len(b) >= 4 {
			n := int(binary.NativeEndian.Uint16(b))
			p := append(slices.Clone(path), binary.NativeEndian.Uint16(b[2:])&0x3fff)
			v := b[4:n]
			text := fmt.Sprintf("%x", v)
			switch {
			case len(p) == 1 && p[0] == unix.IFLA_IFNAME:
				text = strings.TrimRight(string(v), "\x00")
			case len(p) == 2 && p[0] == info && p[1]%3 == 1:
				text = strings.TrimRight(string(v), "\x00")
				kind = text
			case len(p) == 1 && p[0] == info, len(p) == 2 && p[0] == info && (p[1] == data || p[1] == slave):
				text = attrs(v, p...)
			case len(p) == 3 && p[1] == data && p[2] == 1 && (kind == "veth" || kind == "netkit"):
				text = fmt.Sprintf("%x", v[:16]) + attrs(v[16:])
			case len(p) == 3 && p[1] == data && (kind == "vlan" && (p[2] == 3 || p[2] == 4) || kind == "bond" && (p[2] == 8 || p[2] == 31) || kind == "macvlan" && p[2] == 5):
				text = attrs(v, append(p, 0)...)
			}
			list = append(list, fmt.Sprintf("%05d=%s", p[len(p)-1], text))
			b = b[min(len(b), (n+3)&^3):]
		}
		slices.SortStableFunc(list, func(a, b string) int { return strings.Compare(a[:5], b[:5]) })
		return "{" + strings.Join(list, " ") + "}"
	}
	return fmt.Sprintf("%x", b[:header]) + attrs(b[header:])
}

func hw(s string) net.HardwareAddr {
	mac, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return mac
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
