package route

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestLookup(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	if err := Add(t.Context(), ns,
		Default(addr("10.1.0.1")), Default(addr("fd01::1")),
		Route{Dst: prefix("0.0.0.0/0"), Via: addr("10.1.0.9"), Table: 100, Metrics: &Metrics{MTU: 1300}},
		Route{Dst: prefix("10.9.0.0/16"), Hops: []Hop{{Via: addr("10.1.0.5"), Weight: 1}, {Via: addr("10.1.0.6"), Weight: 1}}},
		Route{Dst: prefix("10.8.0.0/16"), Via: addr("fd01::9"), Dev: 100},
		Route{Dst: prefix("10.7.0.0/16"), Type: TypeBlackhole}, Route{Dst: prefix("10.6.0.0/16"), Type: TypeUnreachable}, Route{Dst: prefix("10.5.0.0/16"), Type: TypeProhibit},
		Route{Dst: prefix("fd07::/64"), Type: TypeProhibit},
	); err != nil {
		t.Fatal(err)
	}
	if err := AddRules(t.Context(), ns,
		Rule{Family: IPv4, Mark: 7, Table: 100},
		Rule{Family: IPv4, IPProto: 6, DstPorts: Ports{First: 443}, Table: 100},
		Rule{Family: IPv4, TOS: 0x10, Table: 100},
		Rule{From: prefix("10.1.0.2/32"), To: prefix("198.51.100.0/24"), Table: 100},
	); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		q     Query
		via   string
		entry string
		args  string // for ip route get
	}{
		{Query{Dst: addr("192.0.2.1")}, "10.1.0.1", "default via 10.1.0.1 dev 100 proto static", "192.0.2.1"},
		{Query{Dst: addr("fd77::1")}, "fd01::1", "default via fd01::1 dev 100 proto static metric 1024", "fd77::1"},
		{Query{Dst: addr("10.1.3.4")}, "", "10.1.0.0/16 dev 100 proto kernel scope link src 10.1.0.2", "10.1.3.4"},
		{Query{Dst: addr("10.8.0.1")}, "fd01::9", "10.8.0.0/16 via inet6 fd01::9 dev 100 proto static", "10.8.0.1"},
		{Query{Dst: addr("192.0.2.1"), Mark: 7}, "10.1.0.9", "default via 10.1.0.9 dev 100 table 100 proto static mtu 1300", "192.0.2.1 mark 7"},
		{Query{Dst: addr("192.0.2.1"), IPProto: 6, SrcPort: 1, DstPort: 443}, "10.1.0.9", "default via 10.1.0.9 dev 100 table 100 proto static mtu 1300", "192.0.2.1 ipproto tcp dport 443"},
		{Query{Dst: addr("192.0.2.1"), IPProto: 6, DstPort: 80}, "10.1.0.1", "default via 10.1.0.1 dev 100 proto static", "192.0.2.1 ipproto tcp dport 80"},
		{Query{Dst: addr("192.0.2.1"), TOS: 0x10}, "10.1.0.9", "default via 10.1.0.9 dev 100 table 100 proto static mtu 1300", "192.0.2.1 tos 0x10"},
		{Query{Dst: addr("198.51.100.1"), Src: addr("10.1.0.2")}, "10.1.0.9", "default via 10.1.0.9 dev 100 table 100 proto static mtu 1300", "198.51.100.1 from 10.1.0.2"},
		{Query{Dst: addr("192.0.2.1"), Out: 100}, "10.1.0.1", "default via 10.1.0.1 dev 100 proto static", "192.0.2.1 oif v0"},
	} {
		m, err := Lookup(t.Context(), ns, tt.q)
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		if !testutil.KernelAtLeast(6, 1) {
			m.Route.TOS = 0 // the packet's, of the entries here none
		}
		via := ""
		if m.Via.IsValid() {
			via = m.Via.String()
		}
		if via != tt.via || m.Dev != 100 || m.Type != TypeUnicast || m.Route.String() != tt.entry {
			t.Errorf("%s: by %q dev %d type %s of %s, want %q of %s", tt.args, via, m.Dev, m.Type, m.Route, tt.via, tt.entry)
		}
		var ip []struct {
			Gateway, PrefSrc string
			Via              struct{ Host string }
		}
		testutil.JSON(t, ns, &ip, "ip", append([]string{"-j", "route", "get"}, strings.Fields(tt.args)...)...)
		if len(ip) != 1 || ip[0].Gateway+ip[0].Via.Host != via || ip[0].PrefSrc != "" && ip[0].PrefSrc != m.Src.String() {
			t.Errorf("%s: by %s from %s, ip says %+v", tt.args, via, m.Src, ip)
		}
	}
	m, err := Lookup(t.Context(), ns, Query{Dst: addr("10.9.1.1")})
	if err != nil || len(m.Route.Hops) != 2 || m.Via != addr("10.1.0.5") && m.Via != addr("10.1.0.6") {
		t.Errorf("multipath: %+v, %v", m, err)
	}
	m, err = Lookup(t.Context(), ns, Query{Dst: addr("10.1.0.2")})
	if err != nil || m.Type != TypeLocal || m.Route.Table != TableLocal {
		t.Errorf("local: %+v, %v", m, err)
	}
	m, err = Lookup(t.Context(), ns, Query{Dst: addr("192.0.2.9"), Src: addr("10.1.0.77"), In: 100})
	if err != nil && !errors.Is(err, syscall.EHOSTUNREACH) { // without forwarding
		t.Errorf("a packet that comes in: %+v, %v", m, err)
	}
	for dst, want := range map[string]error{"10.7.0.1": syscall.EINVAL, "10.6.0.1": syscall.EHOSTUNREACH, "10.5.0.1": os.ErrPermission, "fd07::1": os.ErrPermission} {
		if m, err := Lookup(t.Context(), ns, Query{Dst: addr(dst)}); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v, want %v", dst, m, err, want)
		}
	}
	if err := Delete(t.Context(), ns, Default(addr("10.1.0.1"))); err != nil {
		t.Fatal(err)
	}
	if _, err := Lookup(t.Context(), ns, Query{Dst: addr("192.0.2.1")}); !errors.Is(err, syscall.ENETUNREACH) || !strings.Contains(err.Error(), "route to 192.0.2.1") {
		t.Errorf("no route: %v", err)
	}
}

func TestLookupByUser(t *testing.T) {
	t.Parallel()
	ns := box(t)
	if err := Add(t.Context(), ns, Default(addr("10.1.0.1")), Route{Dst: prefix("0.0.0.0/0"), Via: addr("10.1.0.9"), Table: 100}); err != nil {
		t.Fatal(err)
	}
	if err := AddRules(t.Context(), ns, Rule{Family: IPv4, UIDs: &UIDRange{lastUID, lastUID}, Table: 100}); err != nil {
		t.Fatal(err)
	}
	want := map[uint32]string{lastUID: "10.1.0.9"}
	if lastUID > 0 {
		want[lastUID-1] = "10.1.0.1"
	}
	for uid, via := range want {
		m, err := Lookup(t.Context(), ns, Query{Dst: addr("192.0.2.1"), UID: &uid})
		if err != nil || m.Via != addr(via) {
			t.Errorf("user %d goes by %v, %v, want %s", uid, m.Via, err, via)
		}
	}
}

func TestBadQueries(t *testing.T) {
	t.Parallel()
	ns := box(t)
	for _, tt := range []struct {
		q    Query
		says string
	}{
		{Query{}, "no destination"},
		{Query{Dst: netip.MustParseAddr("::ffff:10.0.0.1")}, "IPv4 written as IPv6"},
		{Query{Dst: netip.MustParseAddr("fe80::1%v0")}, "zone"},
		{Query{Dst: addr("10.0.0.1"), Src: addr("fd00::1")}, "another family"},
		{Query{Dst: addr("10.0.0.1"), In: -1}, "index of a link"},
		{Query{Dst: addr("10.0.0.1"), DstPort: 80}, "without a protocol"},
	} {
		if _, err := Lookup(t.Context(), ns, tt.q); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v: %v, want %q", tt.q, err, tt.says)
		}
	}
}
