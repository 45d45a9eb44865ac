package route

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want Route
	}{
		{"default via 10.88.0.1 dev 3 proto static metric 100", Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.88.0.1"), Dev: 3, Metric: 100}},
		{"default via fe80::1 dev 3", Route{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fe80::1"), Dev: 3}},
		{"default via inet6 fe80::1 dev 3", Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("fe80::1"), Dev: 3}},
		{"default dev 3", Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Dev: 3}},
		{"::/0 dev 3", Route{Dst: netip.MustParsePrefix("::/0"), Dev: 3}},
		{"unreachable fd00::/8 metric 4294967295", Route{Dst: netip.MustParsePrefix("fd00::/8"), Type: TypeUnreachable, Metric: 1<<32 - 1}},
		{"192.0.2.1 dev 3 scope link src 10.1.0.2", Route{Dst: netip.MustParsePrefix("192.0.2.1/32"), Dev: 3, Scope: ScopeLink, Src: netip.MustParseAddr("10.1.0.2")}},
		{"10.9.0.0/16 nhid 7 table local expires 5 mtu lock 1400 rtt 12.5ms rto_min 20ms", Route{Dst: netip.MustParsePrefix("10.9.0.0/16"), NextHop: 7, Table: TableLocal}},
		{"10.9.0.0/16 nexthop via 10.1.0.1 nexthop via inet6 fe80::1 dev 4 weight 3 onlink", Route{Dst: netip.MustParsePrefix("10.9.0.0/16"),
			Hops: []Hop{{Via: netip.MustParseAddr("10.1.0.1"), Weight: 1}, {Via: netip.MustParseAddr("fe80::1"), Dev: 4, Weight: 3, OnLink: true}}}},
	} {
		got, err := Parse(tt.text)
		if strings.Contains(tt.text, "expires") {
			if err == nil || !strings.Contains(err.Error(), "do not expire") {
				t.Errorf("%s: %v", tt.text, err)
			}
			got, err = Parse(strings.Replace(tt.text, "expires 5 ", "", 1))
			tt.want.Metrics = &Metrics{MTU: 1400, Lock: LockMTU, RTT: 12500 * time.Microsecond, RTTVar: 0, RTOMin: 20 * time.Millisecond}
		}
		if err != nil || !got.Equal(tt.want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"":                                           "destination",
		"default via":                                "ends where via",
		"10.0.0.1/8 dev 3":                           "host bits",
		"10.0.0.0/8 dev eth0":                        "index of a link",
		"10.0.0.0/8 via fd00::1":                     "another family",
		"10.0.0.0/8 dev 3 table nosuchtable":         `table "nosuchtable" is unknown`,
		"10.0.0.0/8 dev 3 table 4294967296":          "unknown",
		"10.0.0.0/8 dev 3 speed 7":                   `"speed" is unknown`,
		"10.0.0.0/8 dev 3 proto nobody":              `proto "nobody" is unknown`,
		"10.0.0.0/8 nexthop via 10.1.0.1 weight 0":   "weight 0",
		"10.0.0.0/8 nexthop via 10.1.0.1 weight 257": "weight 257",
		"10.0.0.0/8 dev 3 encap gre key 7":           `"gre" is unknown`,
		"10.0.0.0/8 dev 3 mtu many":                  "mtu",
		"10.0.0.0/8 dev 3 rtt NaN":                   "milliseconds",
		"fd00::/8 dev 3 expires -1":                  "expires",
		"blackhole 10.0.0.0/8 via 10.1.0.1":          "no gateway",
		"10.0.0.0/8 dev 3 mtu lock 0":                "locked",
	} {
		if got, err := Parse(text); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, %v, want %q", text, got, err, says)
		}
	}
}

// FuzzParse: whatever Parse takes, it takes again as String writes it, and it is
// the same.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"default via inet6 fe80::1 dev 3 table 70000 proto bgp scope site metric 7 onlink realm 3/7 linkdown 0x80",
		"prohibit fd00::/8 from fd01::/64 metric 9 expires 300sec pref low",
		"10.0.0.0/8 tos 0x10 dev 3 mtu lock 1400 rtt 0.125ms features 0x1 quickack 1 congctl lock bbr",
		"10.0.0.0/8 encap ip id 7 src 10.1.1.1 dst 10.1.1.2 ttl 9 tos 4 key csum flags 0x100 opts 00ff dev 3 src 10.1.0.1",
		"10.0.0.0/8 nexthop encap mpls 100/200 ttl 9 via 10.1.0.1 dev 3 weight 5 dead nexthop dev 4 weight 256",
		"fd00::/8 encap seg6 mode inline segs fd00::1,fd00::2 hmac 0x7 dev 3",
		"fd00::1 encap seg6local action End.DX4 nh4 10.0.0.1 table 5 vrftable 6 iif 1 oif 2 count flavors psp,next-csid lblen 48 nflen 8 dev 3",
		"10.0.0.0/8 encap raw 6 0a0b0c dev 3",
		"multicast 239.0.0.0/8 nhid 5",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			if !errors.Is(err, os.ErrInvalid) {
				t.Fatalf("%q: %v is no os.ErrInvalid", s, err)
			}
			return
		}
		again, err := Parse(r.String())
		if err != nil || !again.Equal(r) || again.Expires != r.Expires || again.Flags != r.Flags || again.String() != r.String() {
			t.Fatalf("%q\nis   %s\nthen %s, %v", s, r, again, err)
		}
	})
}

func TestTableNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("lib/rt_tables", "# comment\n255\tlocal\n100 vendor # behind\n0x65 hexed\nnonsense\n99999999999 toobig\n")
	write("etc/rt_tables", "100 ours\n")
	write("etc/rt_tables.d/vpn.conf", "4294967295 vpn\n")
	write("etc/rt_tables.d/vpn.bak", "7 no\n")
	got, err := readTables(filepath.Join(dir, "lib"), filepath.Join(dir, "nowhere"), filepath.Join(dir, "etc"))
	want := map[Table]string{TableLocal: "local", TableMain: "main", TableDefault: "default", 100: "ours", 0x65: "hexed", 1<<32 - 1: "vpn"}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%v, %v, want %v", got, err, want)
	}
	for n, name := range want {
		if got[n] != name {
			t.Errorf("table %d is %q, want %q", n, got[n], name)
		}
	}
	for name, want := range map[string]Table{"main": TableMain, "local": TableLocal, "default": TableDefault, "70000": 70000, "0x10": 16} {
		if got, err := TableNamed(name); err != nil || got != want {
			t.Errorf("%q is %v, %v", name, got, err)
		}
	}
	if _, err := TableNamed("no such table"); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "no such table") {
		t.Errorf("an unknown name: %v", err)
	}
}
