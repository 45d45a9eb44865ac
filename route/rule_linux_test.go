package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// ipRules returns what ip -d -j shows of the rules that the kernel did not make.
func ipRules(t testing.TB, ns *netns.NS) (rules []map[string]any) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		var all []map[string]any
		testutil.JSON(t, ns, &all, "ip", "-d", "-j", family, "rule", "show")
		for _, r := range all {
			if r["protocol"] != "kernel" {
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// lastUID is the highest user id that rules can have here: of a normal user's
// namespace, which has one, that is 0.
var lastUID = func() uint32 {
	m, _ := os.ReadFile("/proc/self/uid_map")
	if f := strings.Fields(string(m)); len(f) == 3 && f[2] == "4294967295" {
		return 1<<32 - 2
	}
	return 0
}()

var ruleFeatures = []struct {
	rule         Rule
	want         string
	major, minor int
	need         string
}{
	{rule: Rule{From: prefix("10.1.0.0/16"), Table: 100, Priority: 1000}, want: `{"priority":1000,"src":"10.1.0.0","srclen":16,"table":"100","protocol":"static"}`},
	{rule: Rule{From: prefix("10.1.0.0/16"), To: prefix("10.2.0.0/24"), Not: true, Table: 70000, Protocol: ProtoBGP}, want: `{"not":null,"src":"10.1.0.0","dst":"10.2.0.0","dstlen":24,"table":"70000","protocol":"bgp"}`},
	{rule: Rule{To: prefix("fd02::/64"), Table: 100, Priority: 7}, want: `{"dst":"fd02::","dstlen":64,"table":"100"}`},
	{rule: Rule{Family: IPv4, IIF: "lo", OIF: "eth7", Table: 100}, want: `{"iif":"lo","oif":"eth7","oif_detached":null}`},
	{rule: Rule{Family: IPv4, Mark: 0x10, MarkMask: new(uint32(0xf0)), Table: 100}, want: `{"fwmark":"0x10","fwmask":"0xf0"}`},
	{rule: Rule{Family: IPv6, Mark: 0x10, Table: 100}, want: `{"fwmark":"0x10"}`},
	{rule: Rule{Family: IPv4, TOS: 0x10, Table: 100}, want: `{"tos":"0x10"}`},
	{rule: Rule{Family: IPv4, UIDs: &UIDRange{0, lastUID}, Table: 100}, want: fmt.Sprintf(`{"uid_start":0,"uid_end":%d}`, lastUID)},
	{rule: Rule{Family: IPv6, UIDs: &UIDRange{lastUID, lastUID}, Table: 100}, want: fmt.Sprintf(`{"uid_start":%d,"uid_end":%[1]d}`, lastUID)},
	{rule: Rule{Family: IPv4, IPProto: 6, SrcPorts: Ports{First: 1024, Last: 2048}, DstPorts: Ports{First: 443}, Table: 100}, want: `{"ipproto":"tcp","sport_start":1024,"sport_end":2048,"dport":443}`},
	{rule: Rule{Family: IPv4, TunID: 77, Table: 100}, want: `{"tun_id":77}`},
	{rule: Rule{Family: IPv4, Table: TableMain, SuppressPrefixLen: new(0), SuppressGroup: new(uint32(7))}, want: `{"table":"main","suppress_prefixlen":0,"suppress_ifgroup":"7"}`},
	{rule: Rule{Family: IPv4, Realm: Realm{3, 4}, Table: 100}, want: `{"flow_from":"3","flow_to":"4"}`},
	{rule: Rule{Family: IPv4, Action: ActionGoto, Goto: 32766, Priority: 9}, want: `{"goto":32766}`},
	{rule: Rule{Family: IPv4, Action: ActionNop, Priority: 9}, want: `{"nop":null}`},
	{rule: Rule{Family: IPv4, Action: ActionBlackhole, Priority: 9}, want: `{"action":"blackhole"}`},
	{rule: Rule{Family: IPv6, Action: ActionUnreachable, Priority: 9}, want: `{"action":"unreachable"}`},
	{rule: Rule{Family: IPv6, Action: ActionProhibit, Priority: 9}, want: `{"action":"prohibit"}`},
	{rule: Rule{Family: IPv4, L3MDev: true, Priority: 9}, want: `{"l3mdev":null}`, major: 5, minor: 10, need: "VRF"},
	// What follows is younger than some ip-rule(8), which shows the rest then.
	{rule: Rule{Family: IPv4, DSCP: new(uint8(46)), Priority: 9, Table: 100}, want: `{"priority":9}`, major: 6, minor: 12, need: "DSCP in rules"},
	{rule: Rule{Family: IPv6, DSCP: new(uint8(0)), Priority: 9, Table: 100}, want: `{"priority":9}`, major: 6, minor: 12, need: "DSCP in rules"},
	{rule: Rule{Family: IPv6, FlowLabel: 0x12345, Priority: 9, Table: 100}, want: `{"priority":9}`, major: 6, minor: 14, need: "flow labels in rules"},
	{rule: Rule{Family: IPv6, FlowLabel: 0x12300, FlowLabelMask: 0xfff00, Priority: 9, Table: 100}, want: `{"priority":9}`, major: 6, minor: 14, need: "flow labels in rules"},
	{rule: Rule{Family: IPv4, IPProto: 17, DstPorts: Ports{First: 80, Mask: 0xfff0}, Priority: 9, Table: 100}, want: `{"priority":9,"ipproto":"udp","dport":80}`, major: 6, minor: 15, need: "port masks in rules"},
	{rule: Rule{Family: IPv4, DSCP: new(uint8(8)), DSCPMask: new(uint8(0x38)), Priority: 9, Table: 100}, want: `{"priority":9}`, major: 6, minor: 15, need: "DSCP masks in rules"},
}

func TestRulesReadByIP(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, tt := range ruleFeatures {
		t.Run(tt.rule.String(), func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			err := AddRules(t.Context(), ns, tt.rule)
			if tt.need != "" {
				testutil.NeedKernel(t, tt.major, tt.minor, tt.need, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			got := ipRules(t, ns)
			if len(got) != 1 || !holds(got[0], parseJSON(t, tt.want)) {
				j, _ := json.Marshal(got)
				t.Fatalf("ip shows\n%s, want\n%s", j, tt.want)
			}
			listed, err := ListRules(t.Context(), ns, 0)
			if err != nil || len(listed) != 6 { // three of IPv4 or IPv6 the kernel makes, two of the other
				t.Fatalf("listed %v, %v", listed, err)
			}
			var mine Rule
			for _, r := range listed {
				if r.Protocol != ProtoKernel {
					mine = r
				}
			}
			if want := tt.rule.as(&mine); !mine.Equal(want) {
				t.Errorf("listed %+v\n  want %+v", mine, want)
			}
			if err := AddRules(t.Context(), ns, mine); !errors.Is(err, os.ErrExist) {
				t.Errorf("what is listed, added again: %v", err)
			}
			if err := DeleteRules(t.Context(), ns, mine); err != nil {
				t.Error(err)
			}
			if got := ipRules(t, ns); len(got) != 0 {
				t.Errorf("after DeleteRules ip shows %v", got)
			}
			if err := DeleteRules(t.Context(), ns, mine); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("deleted again: %v", err)
			}
		})
	}
}

// A selector that the kernel would ignore changes nothing.
func TestRuleThatTheKernelWouldWiden(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	for _, s := range selectors {
		rule := s.try
		rule.Table, rule.Priority = 100, 9
		var major, minor int
		if _, err := fmt.Sscanf(s.kernel, "%d.%d", &major, &minor); err != nil {
			t.Fatal(err)
		}
		err := AddRules(t.Context(), ns, rule)
		if !testutil.KernelAtLeast(major, minor) {
			if derr := DeleteRules(t.Context(), ns, rule); !errors.Is(err, errors.ErrUnsupported) || !errors.Is(derr, errors.ErrUnsupported) || !strings.Contains(err.Error(), "needs Linux 6.") {
				t.Errorf("%s: %v and %v", s.name, err, derr)
			}
		} else if err = errors.Join(err, DeleteRules(t.Context(), ns, rule)); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		if got := ipRules(t, ns); len(got) != 0 {
			t.Fatalf("%s: ip shows %v", s.name, got)
		}
	}
}

// A DSCP counts in whole, where TOS compares three bits of it.
func TestRuleByDSCPSeenByIP(t *testing.T) {
	t.Parallel()
	ns := box(t)
	err := AddRules(t.Context(), ns, Rule{Family: IPv4, DSCP: new(uint8(46)), Table: 100})
	testutil.NeedKernel(t, 6, 12, "DSCP in rules", err)
	if err := Add(t.Context(), ns, Default(addr("10.1.0.1")), Route{Dst: prefix("0.0.0.0/0"), Via: addr("10.1.0.9"), Table: 100}); err != nil {
		t.Fatal(err)
	}
	for tos, via := range map[string]string{"0xb8": "10.1.0.9", "0x18": "10.1.0.1", "0": "10.1.0.1"} {
		var got []struct{ Gateway string }
		testutil.JSON(t, ns, &got, "ip", "-j", "route", "get", "192.0.2.1", "tos", tos)
		if len(got) != 1 || got[0].Gateway != via {
			t.Errorf("tos %s goes by %v, want %s", tos, got, via)
		}
	}
}

func TestRulesAreAllOrNothing(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	rules := []Rule{
		{From: prefix("10.1.0.0/16"), Table: 100, Priority: 1000},
		{From: prefix("10.2.0.0/16"), Table: 100, Priority: 1000},
	}
	if err := AddRules(t.Context(), ns, rules[1]); err != nil {
		t.Fatal(err)
	}
	if err := AddRules(t.Context(), ns, rules...); !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "1000: from 10.2.0.0/16 lookup 100") {
		t.Errorf("AddRules: %v", err)
	}
	if got := ipRules(t, ns); len(got) != 1 || got[0]["src"] != "10.2.0.0" {
		t.Errorf("ip shows %v", got)
	}
	err := DeleteRules(t.Context(), ns, rules...)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "10.1.0.0") {
		t.Errorf("DeleteRules: %v", err)
	}
	if got := ipRules(t, ns); len(got) != 0 {
		t.Errorf("ip shows %v", got)
	}
}

func TestSyncRules(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	const owner = 77
	alien := Rule{From: prefix("10.9.0.0/16"), Table: 100, Priority: 900}
	if err := AddRules(t.Context(), ns, alien); err != nil {
		t.Fatal(err)
	}
	uplink := []Rule{
		{From: prefix("10.1.0.0/16"), Table: 100, Priority: 1000},
		{From: prefix("fd01::/64"), Table: 100, Priority: 1000},
		{Family: IPv4, Mark: 1, Table: 100}, // any priority
	}
	for i, tt := range []struct {
		want []Rule
		did  Changes
	}{
		{uplink, Changes{Added: 3}},
		{uplink, Changes{}},
		{append([]Rule{{Family: IPv6, Mark: 2, Table: 101, Priority: 5}}, uplink[1:]...), Changes{Added: 1, Deleted: 1}},
		{nil, Changes{Deleted: 3}},
	} {
		did, err := SyncRules(t.Context(), ns, owner, tt.want...)
		if err != nil || did != tt.did {
			t.Errorf("%d: %+v, %v, want %+v", i, did, err, tt.did)
		}
		if got := ipRules(t, ns); len(got) != len(tt.want)+1 {
			t.Errorf("%d: ip shows %v", i, got)
		}
	}
	// Another owner's rule that is otherwise the same stays.
	alien.Protocol = 0
	for _, want := range [][]Rule{{alien}, {}} {
		if _, err := SyncRules(t.Context(), ns, owner, want...); err != nil {
			t.Error(err)
		}
		if got := ipRules(t, ns); len(got) != len(want)+1 || got[0]["protocol"] != "static" {
			t.Errorf("ip shows %v", got)
		}
	}
	bad := Rule{Family: IPv4, Action: ActionGoto, Goto: 5000, Priority: 4000, From: prefix("10.3.0.0/16"), UIDs: &UIDRange{1<<32 - 1, 1<<32 - 1}}
	if _, err := SyncRules(t.Context(), ns, owner, uplink[0], bad); err == nil || !strings.Contains(err.Error(), "uidrange") {
		t.Errorf("a rule that the kernel refuses: %v", err)
	}
	if got := ipRules(t, ns); len(got) != 1 {
		t.Errorf("after a sync that failed ip shows %v", got)
	}
	for _, p := range []Protocol{0, ProtoKernel, ProtoBoot, ProtoRA} {
		if _, err := SyncRules(t.Context(), ns, p); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("the owner %v: %v", p, err)
		}
	}
	if _, err := SyncRules(t.Context(), ns, owner, Rule{Family: IPv4, Table: 100, Protocol: 5}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a rule of another protocol: %v", err)
	}
}

func TestBadRules(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	for _, tt := range []struct {
		rule Rule
		says string
	}{
		{Rule{Table: 100}, "IPv4 or IPv6"},
		{Rule{Family: 9, Table: 100}, "family 9"},
		{Rule{From: prefix("10.0.0.1/8"), Table: 100}, "host bits"},
		{Rule{From: prefix("10.0.0.0/8"), To: prefix("fd00::/8"), Table: 100}, "another family"},
		{Rule{From: prefix("::ffff:10.0.0.0/104"), Table: 100}, "IPv4 written as IPv6"},
		{Rule{Family: IPv4}, "no table"},
		{Rule{Family: IPv4, L3MDev: true, Table: 7}, "l3mdev"},
		{Rule{Family: IPv4, IIF: "averyveryverylongname", Table: 7}, "no name of a link"},
		{Rule{Family: IPv4, OIF: "a b", Table: 7}, "no name of a link"},
		{Rule{Family: IPv4, TOS: 3, Table: 7}, "two low bits"},
		{Rule{Family: IPv4, DSCP: new(uint8(64)), Table: 7}, "6 bits"},
		{Rule{Family: IPv4, DSCPMask: new(uint8(1)), Table: 7}, "mask without"},
		{Rule{Family: IPv4, DSCP: new(uint8(1)), TOS: 4, Table: 7}, "both"},
		{Rule{Family: IPv4, FlowLabel: 1, Table: 7}, "flow label"},
		{Rule{Family: IPv6, FlowLabel: 1 << 20, Table: 7}, "20 bits"},
		{Rule{Family: IPv6, TunID: 1, Table: 7}, "tunnel id"},
		{Rule{Family: IPv4, UIDs: &UIDRange{2, 1}, Table: 7}, "no range"},
		{Rule{Family: IPv4, SrcPorts: Ports{First: 9, Last: 8}, Table: 7}, "no range"},
		{Rule{Family: IPv4, SrcPorts: Ports{Last: 8}, Table: 7}, "from 1"},
		{Rule{Family: IPv4, DstPorts: Ports{First: 1, Last: 8, Mask: 1}, Table: 7}, "no mask"},
		{Rule{Family: IPv4, Action: ActionGoto}, "not given"},
		{Rule{Family: IPv4, Action: ActionGoto, Goto: 5, Priority: 5}, "forward"},
		{Rule{Family: IPv4, Action: 5}, "action 5"},
		{Rule{Family: IPv4, Action: ActionNop, Table: 7}, "with the action"},
		{Rule{Family: IPv4, Goto: 7, Table: 7}, "with the action"},
		{Rule{Family: IPv4, Action: ActionNop, SuppressPrefixLen: new(0)}, "suppressed"},
		{Rule{Family: IPv4, Table: 7, SuppressPrefixLen: new(129)}, "129"},
	} {
		err := AddRules(t.Context(), ns, Rule{Family: IPv4, Table: 100}, tt.rule)
		var e *netns.Error
		if !errors.Is(err, os.ErrInvalid) || !errors.As(err, &e) || e.Op != "route.AddRules" || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v: %v, want %q", tt.rule, err, tt.says)
		}
	}
	if got := ipRules(t, ns); len(got) != 0 {
		t.Errorf("something was sent: %v", got)
	}
}

// A rule of a newer kernel keeps what is unknown here.
func TestRuleKeepsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	rule := Rule{From: prefix("10.0.0.0/8"), Table: 100, Priority: 7, Protocol: 77}
	rule.Unknown = nl.AppendU32(nil, 99, 0x01020304)
	var got Rule
	if ok, err := decodeRule(rule.append(nil, rule.Action, rule.Protocol), &got); err != nil || !ok || !got.Equal(rule) {
		t.Errorf("%+v came back as %+v, %v", rule, got, err)
	}
	if !strings.Contains(got.String(), "unknown 0800630004030201") && !strings.Contains(got.String(), "unknown 0008006301020304") {
		t.Errorf("String says %q", got)
	}
}

func FuzzDecodeRule(f *testing.F) {
	for _, tt := range ruleFeatures {
		f.Add(tt.rule.append(nil, tt.rule.Action, tt.rule.Protocol))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again Rule
		ok, err := decodeRule(b, &r)
		if err != nil || !ok {
			return
		}
		_ = r.String()
		if r.check(true) != nil {
			return
		}
		// What can be sent comes back as it was sent.
		if ok, err := decodeRule(r.append(nil, r.Action, r.Protocol), &again); err != nil || !ok || !again.Equal(r) {
			t.Fatalf("%+v came back as\n%+v (%v)", r, again, err)
		}
	})
}
