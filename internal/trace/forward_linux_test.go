package trace

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func ruleset(t testing.TB, ns *netns.NS) *Ruleset {
	t.Helper()
	c, err := nsconn.Shared(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Read(t.Context(), nft.New(c), func(_ byte, table string) bool { return table == "ours" })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func forwards(t testing.TB, r *Ruleset) Forwards {
	t.Helper()
	f, err := r.Forwards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// listed are lines of Forward.String and of unclear rules.
func listed(t *testing.T, ns *netns.NS) (got []string) {
	t.Helper()
	r := ruleset(t, ns)
	f := forwards(t, r)
	for _, one := range f.All {
		got = append(got, one.String())
		if one.Handle == 0 || one.Table == "" || one.Chain == "" {
			t.Errorf("%v: no rule: %+v", one, one)
		}
		traced(t, r, one)
	}
	for _, u := range f.Unclear {
		got = append(got, "unclear "+u.Text)
	}
	return got
}

// want compares the forwards of a namespace with lines.
func want(t *testing.T, ns *netns.NS, lines string) {
	t.Helper()
	got := listed(t, ns)
	var all []string
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	if !slices.Equal(got, all) {
		t.Errorf("\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(all, "\n"))
	}
}

// traced lets a packet that a forward is about through the rules, which must come to the same rule.
func traced(t *testing.T, r *Ruleset, f Forward) {
	t.Helper()
	if !f.Certain || f.Proto == 0 {
		return
	}
	dst := f.Addr.Addr()
	if f.Addr.Bits() == 0 {
		dst = netip.MustParseAddr("203.0.113.77")
		if f.V6 {
			dst = netip.MustParseAddr("2001:db8::77")
		}
	}
	src := netip.MustParseAddr("198.51.100.1")
	if f.V6 {
		src = netip.MustParseAddr("2001:db8:1::1")
	}
	for _, port := range []uint16{max(1, f.First), f.Last} {
		p := Packet{V6: f.V6, In: Link{2, "up9"}, Src: src, Dst: dst, Proto: f.Proto, Sport: 12345, Dport: port, Local: f.Local}
		found, err := r.Trace(t.Context(), unix.NF_INET_PRE_ROUTING, math.MinInt32, math.MaxInt32, p)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(found); n == 0 || found[n-1].Handle != f.Handle || !found[n-1].DNAT {
			t.Errorf("%v: a packet to port %d comes to %v, and not to rule %d", f, port, found, f.Handle)
		}
	}
}

// Native rules, each in a chain that only packets for the host reach.
func TestForwardsOfNativeRules(t *testing.T) {
	t.Parallel()
	const table = `table ip n {
		map one { type inet_service : ipv4_addr; elements = { 80 : 10.0.0.1, 81 : 10.0.0.2 } }
		map two { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; elements = { 203.0.113.1 . 80-89 : 10.0.0.1 . 8080, 203.0.113.0/24 . 90 : 10.0.0.2 . 8090 } }
		map jumps { type inet_proto . inet_service : verdict; elements = { tcp . 80 : jump a, udp . 53 : goto b, tcp . 22 : drop } }
		set some { type inet_service; flags interval; elements = { 80, 100-200 } }
		chain a { meta l4proto tcp dnat to 10.0.0.1:8080; }
		chain b { dnat to 10.0.0.2; }
		chain p { type nat hook prerouting priority dstnat; fib daddr type local jump q; }
		chain q { %s; }
	}`
	for _, c := range []struct{ rules, want string }{
		{"tcp dport 8080 dnat to 10.88.0.2:80", "tcp 0.0.0.0/0 8080 to 10.88.0.2:80, local"},
		{"udp dport 53 dnat to 10.88.0.2", "udp 0.0.0.0/0 53 to 10.88.0.2:0, local"},
		{"ip daddr 203.0.113.1 tcp dport 80 dnat to 10.0.0.1", "tcp 203.0.113.1/32 80 to 10.0.0.1:0, local"},
		{"ip daddr 203.0.112.0/23 tcp dport 80 dnat to 10.0.0.1", "tcp 203.0.112.0/23 80 to 10.0.0.1:0, local"},
		{"ip daddr 203.0.113.1-203.0.113.3 tcp dport 80 dnat to 10.0.0.1", "tcp 203.0.113.1/32 80 to 10.0.0.1:0, local\ntcp 203.0.113.2/31 80 to 10.0.0.1:0, local"},
		{"tcp dport { 80, 443, 8000-8010 } dnat to 10.0.0.1", "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local\ntcp 0.0.0.0/0 443 to 10.0.0.1:0, local\ntcp 0.0.0.0/0 8000-8010 to 10.0.0.1:0, local"},
		{"tcp dport @some dnat to 10.0.0.1", "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local\ntcp 0.0.0.0/0 100-200 to 10.0.0.1:0, local"},
		{"tcp dport 8000-8010 dnat to 10.0.0.1:80", "tcp 0.0.0.0/0 8000-8010 to 10.0.0.1:80, local"},
		{"tcp dport 8000-8010 dnat to 10.0.0.1:8000-8010", "tcp 0.0.0.0/0 8000-8010 to 10.0.0.1:8000-8010, local"},
		{"tcp dport 80 dnat to 10.0.0.1:8000-8010", "tcp 0.0.0.0/0 80 to 10.0.0.1:8000-8010, local, perhaps"},
		{"tcp dport 80 dnat to 10.0.0.1-10.0.0.9", "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local, perhaps"},
		{"tcp dport >= 60000 dnat to 10.0.0.1", "tcp 0.0.0.0/0 60000-65535 to 10.0.0.1:0, local"},
		{"tcp dport != 22 dnat to 10.0.0.1", "tcp 0.0.0.0/0 0-21 to 10.0.0.1:0, local\ntcp 0.0.0.0/0 23-65535 to 10.0.0.1:0, local"},
		{"meta l4proto { tcp, udp } th dport 53 dnat to 10.0.0.1:1053", "tcp 0.0.0.0/0 53 to 10.0.0.1:1053, local\nudp 0.0.0.0/0 53 to 10.0.0.1:1053, local"},
		{"dnat to 10.0.0.1", "any 0.0.0.0/0 0-65535 to 10.0.0.1:0, local"},
		{"tcp dport 80 redirect to :8080", "tcp 0.0.0.0/0 80 to itself:8080, local"},
		{"dnat to tcp dport map @one", "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local\ntcp 0.0.0.0/0 81 to 10.0.0.2:0, local"},
		{"dnat to tcp dport map { 80 : 10.0.0.1, 81-85 : 10.0.0.2 }", "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local\ntcp 0.0.0.0/0 81-85 to 10.0.0.2:0, local"},
		{"dnat ip to ip daddr . tcp dport map @two", "tcp 203.0.113.0/24 90 to 10.0.0.2:8090, local\ntcp 203.0.113.1/32 80-89 to 10.0.0.1:8080, local"},
		{"meta l4proto . th dport vmap @jumps", "tcp 0.0.0.0/0 80 to 10.0.0.1:8080, local\nudp 0.0.0.0/0 53 to 10.0.0.2:0, local"},
		// Conditions.
		{`iifname != "br0" tcp dport 80 dnat to 10.0.0.1`, "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local"},
		{`iifname "up0" tcp dport 80 dnat to 10.0.0.1`, `tcp 0.0.0.0/0 80 to 10.0.0.1:0, local, perhaps, if iifname "up0" tcp dport 80`},
		{`ip saddr 192.0.2.0/24 counter tcp dport 80 dnat to 10.0.0.1`, `tcp 0.0.0.0/0 80 to 10.0.0.1:0, local, perhaps, if ip saddr 192.0.2.0/24 tcp dport 80`},
		{`ip saddr != 127.0.0.0/8 tcp dport 80 dnat to 10.0.0.1`, `tcp 0.0.0.0/0 80 to 10.0.0.1:0, local`},
		{`meta mark 5 tcp dport 80 dnat to 10.0.0.1`, `tcp 0.0.0.0/0 80 to 10.0.0.1:0, local, perhaps, if meta mark 0x00000005 tcp dport 80`},
		{`ct state new tcp dport 80 dnat to 10.0.0.1`, `tcp 0.0.0.0/0 80 to 10.0.0.1:0, local`},
		{`limit rate 1/second tcp dport 80 dnat to 10.0.0.1`, `tcp 0.0.0.0/0 80 to 10.0.0.1:0, local, perhaps, if limit rate 1/second tcp dport 80`},
		{`dnat to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }`, `any 0.0.0.0/0 0-65535 to 10.0.0.1:0, local, perhaps, if dnat to numgen random mod 2 map @__map0
			any 0.0.0.0/0 0-65535 to 10.0.0.2:0, local, perhaps, if dnat to numgen random mod 2 map @__map0`},
		// What comes before.
		{`tcp dport 80 accept; tcp dport 80 dnat to 10.0.0.1`, ""},
		{`tcp dport 80 return; tcp dport { 80, 81 } dnat to 10.0.0.1`, "tcp 0.0.0.0/0 81 to 10.0.0.1:0, local"},
		{`tcp dport 85 return; tcp dport 80-90 dnat to 10.0.0.1`, "tcp 0.0.0.0/0 80-84 to 10.0.0.1:0, local\ntcp 0.0.0.0/0 86-90 to 10.0.0.1:0, local"},
		{`ip daddr 203.0.113.1 tcp dport 80 return; tcp dport 80-81 dnat to 10.0.0.1`, "tcp 0.0.0.0/0 80-81 to 10.0.0.1:0, local, perhaps"},
		{`ip daddr 203.0.113.1 tcp dport 80 dnat to 10.0.0.2; tcp dport 80 dnat to 10.0.0.1`, "tcp 203.0.113.1/32 80 to 10.0.0.2:0, local\ntcp 0.0.0.0/0 80 to 10.0.0.1:0, local"},
		{`meta l4proto tcp return; meta l4proto { tcp, udp } th dport 53 dnat to 10.0.0.1`, "udp 0.0.0.0/0 53 to 10.0.0.1:0, local"},
		{`ip daddr 203.0.113.0/24 drop; ip daddr 203.0.113.1 tcp dport 80 dnat to 10.0.0.1`, ""},
		{`tcp dport 80 dnat to 10.0.0.1; tcp dport 80 dnat to 10.0.0.2; udp dport 80 dnat to 10.0.0.3`, "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local\nudp 0.0.0.0/0 80 to 10.0.0.3:0, local"},
		{`iifname "br0" return; tcp dport 80 dnat to 10.0.0.1`, "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local"},
		{`meta mark 5 return; tcp dport 80 dnat to 10.0.0.1`, "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local, perhaps"},
		{`ip protocol udp meta mark 5 accept; tcp dport 80 dnat to 10.0.0.1`, "tcp 0.0.0.0/0 80 to 10.0.0.1:0, local"},
		{`tcp dport 81 jump a; tcp dport 80 jump a`, "tcp 0.0.0.0/0 81 to 10.0.0.1:8080, local\ntcp 0.0.0.0/0 80 to 10.0.0.1:8080, local"},
		{`goto a; tcp dport 80 dnat to 10.0.0.9`, "tcp 0.0.0.0/0 0-65535 to 10.0.0.1:8080, local"},
		// What is not understood.
		{`dnat ip prefix to ip daddr map { 10.0.0.0/24 : 10.1.0.0/24 }`, "unclear dnat ip prefix to ip daddr map @__map0"},
	} {
		t.Run(c.rules, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			testutil.Run(t, ns, "nft", fmt.Sprintf(table, c.rules))
			want(t, ns, c.want)
		})
	}
}

// iptables runs commands of iptables, one a line; -6 before one is of ip6tables.
func iptables(t testing.TB, ns *netns.NS, commands string) {
	t.Helper()
	for line := range strings.Lines(commands) {
		args := strings.Fields(line)
		if len(args) == 0 {
			continue
		}
		tool := "iptables-nft"
		if args[0] == "-6" {
			tool, args = "ip6tables-nft", args[1:]
		}
		testutil.Run(t, ns, tool, append([]string{"-t", "nat"}, args...)...)
	}
}

// As Docker makes them with its iptables backend.
func TestForwardsOfDocker(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	iptables(t, ns, `
		-N DOCKER
		-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
		-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
		-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
		-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
		-A DOCKER -i docker0 -j RETURN
		-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
		-A DOCKER -d 203.0.113.1/32 ! -i docker0 -p udp -m udp --dport 53 -j DNAT --to-destination 172.17.0.3:53
		-A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:81
		-A DOCKER ! -i docker0 -p sctp -m sctp --dport 9 -j DNAT --to-destination 172.17.0.2:9
		-6 -N DOCKER
		-6 -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
		-6 -A DOCKER ! -s fe80::/10 ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80`)
	want(t, ns, `
		tcp 0.0.0.0/0 8080 to 172.17.0.2:80, local
		udp 203.0.113.1/32 53 to 172.17.0.3:53, local
		tcp 127.0.0.1/32 8081 to 172.17.0.2:81, local
		sctp 0.0.0.0/0 9 to 172.17.0.2:9, local
		tcp ::/0 8080 to [fd00::2]:80, local`)
}

// As Docker 29 makes them with its nftables backend.
func TestForwardsOfDockersNftables(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "nft", `
		table ip docker-bridges {
			map filter-forward-in-jumps { type ifname : verdict; elements = { "docker0" : jump filter-forward-in__docker0 } }
			chain filter-FORWARD { type filter hook forward priority filter; policy accept; oifname vmap @filter-forward-in-jumps; }
			chain nat-OUTPUT { type nat hook output priority -100; policy accept; ip daddr != 127.0.0.0/8 fib daddr type local counter jump nat-prerouting-and-output; }
			chain nat-PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local counter jump nat-prerouting-and-output; }
			chain nat-prerouting-and-output {
				iifname "loopback0" ip daddr 127.0.0.0/8 counter return
				iifname != "docker0" tcp dport 8080 counter dnat to 192.168.0.2:80 comment "DNAT"
				iifname != "docker0" ip daddr 203.0.113.1 udp dport 53 counter dnat to 192.168.0.3:5353 comment "DNAT"
			}
			chain filter-forward-in__docker0 { ct state established,related counter accept; counter drop comment "UNPUBLISHED PORT DROP"; }
		}
		table ip6 docker-bridges {
			chain nat-PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local counter jump nat-prerouting-and-output; }
			chain nat-prerouting-and-output { iifname != "docker0" ip6 saddr != fe80::/10 ip6 daddr ::1 tcp dport 8080 counter dnat to [fd49::1]:80 comment "DNAT"; }
		}`)
	want(t, ns, `
		tcp 0.0.0.0/0 8080 to 192.168.0.2:80, local
		udp 203.0.113.1/32 53 to 192.168.0.3:5353, local
		tcp ::1/128 8080 to [fd49::1]:80, local`)
}

// As CNI's portmap makes them with iptables, and podman's earlier releases by the same scheme.
func TestForwardsOfPortmap(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	iptables(t, ns, `
		-N CNI-HOSTPORT-SETMARK
		-A CNI-HOSTPORT-SETMARK -m comment --comment mark -j MARK --set-xmark 0x2000/0x2000
		-N CNI-HOSTPORT-DNAT
		-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
		-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
		-N CNI-DN-67e92b96e692a494b6b85
		-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment dnat -m multiport --dports 8080,8081,8083 -j CNI-DN-67e92b96e692a494b6b85
		-A CNI-HOSTPORT-DNAT -p udp -m comment --comment dnat -m multiport --dports 8080,8082 -j CNI-DN-67e92b96e692a494b6b85
		-A CNI-DN-67e92b96e692a494b6b85 -s 10.0.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
		-A CNI-DN-67e92b96e692a494b6b85 -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
		-A CNI-DN-67e92b96e692a494b6b85 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80
		-A CNI-DN-67e92b96e692a494b6b85 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.0.0.2:80
		-A CNI-DN-67e92b96e692a494b6b85 -p udp -m udp --dport 8080 -j DNAT --to-destination 10.0.0.2:81
		-A CNI-DN-67e92b96e692a494b6b85 -p udp -m udp --dport 8082 -j DNAT --to-destination 10.0.0.2:82
		-A CNI-DN-67e92b96e692a494b6b85 -d 192.168.0.2/32 -p tcp -m tcp --dport 8083 -j DNAT --to-destination 10.0.0.2:83
		-A CNI-DN-67e92b96e692a494b6b85 -p tcp -m tcp --dport 9999 -j DNAT --to-destination 10.0.0.2:99
		-N NETAVARK-HOSTPORT-DNAT
		-N NETAVARK-DN-1D8721804F16F
		-A PREROUTING -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT
		-A NETAVARK-HOSTPORT-DNAT -d 10.89.0.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.89.0.1:5300
		-A NETAVARK-HOSTPORT-DNAT -p tcp -m tcp --dport 9000:9010 -m comment --comment dnat -j NETAVARK-DN-1D8721804F16F
		-A NETAVARK-DN-1D8721804F16F -p tcp -m tcp --dport 9000:9010 -j DNAT --to-destination 10.88.0.2:80-90/9000`)
	want(t, ns, `
		tcp 0.0.0.0/0 8080 to 10.0.0.2:80, local
		tcp 0.0.0.0/0 8081 to 10.0.0.2:80, local
		tcp 192.168.0.2/32 8083 to 10.0.0.2:83, local
		udp 0.0.0.0/0 8080 to 10.0.0.2:81, local
		udp 0.0.0.0/0 8082 to 10.0.0.2:82, local
		udp 10.89.0.1/32 53 to 10.89.0.1:5300, local
		tcp 0.0.0.0/0 9000-9010 to 10.88.0.2:80-90, local`)
}

// As CNI's portmap and netavark make them with nftables.
func TestForwardsOfPortmapsAndNetavarksNftables(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "nft", `
		table ip cni_hostport {
			comment "CNI portmap plugin"
			chain hostip_hostports { ip daddr 192.168.0.2 tcp dport 8083 dnat to 10.0.0.2:83 comment "icee6giejonei6so"; }
			chain hostports { tcp dport 8080 dnat to 10.0.0.2:80 comment "icee6giejonei6so"; udp dport 8080 dnat to 10.0.0.2:81 comment "icee6giejonei6so"; }
			chain hostports_all { jump hostip_hostports; jump hostports; }
			chain prerouting { type nat hook prerouting priority -100; fib daddr type local jump hostports_all; }
		}
		table ip6 cni_hostport {
			chain hostports { tcp dport 8080 dnat to [2001:db8::2]:80; }
			chain prerouting { type nat hook prerouting priority -100; fib daddr type local jump hostports; }
		}
		table inet netavark {
			chain NETAVARK-HOSTPORT-SETMARK { meta mark set meta mark or 0x2000; }
			chain nv_dnat {
				ip saddr 10.88.0.0/16 ip daddr 192.168.188.25 tcp dport 9080 jump NETAVARK-HOSTPORT-SETMARK
				ip daddr 192.168.188.25 tcp dport 9080 ct mark set meta mark or 0x1000 dnat ip to 10.88.0.14:8080
				ip daddr 192.168.188.25 udp dport 9080 ct mark set meta mark or 0x1000 dnat ip to 10.88.0.14:8080
			}
			chain nv6_dnat { tcp dport 9081 dnat ip6 to [fd10:88:a::2]:81; }
			chain NETAVARK-HOSTPORT-DNAT {
				ip daddr 10.89.3.1 meta l4proto { tcp, udp } th dport 53 dnat ip to 10.89.3.1:1053
				ip6 daddr fd10:88:a::1 meta l4proto { tcp, udp } th dport 53 dnat ip6 to [fd10:88:a::1]:1053
				ip daddr 192.168.188.25 tcp dport 9080 jump nv_dnat
				ip daddr 192.168.188.25 udp dport 9080 jump nv_dnat
				tcp dport 9081 jump nv6_dnat
			}
			chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local jump NETAVARK-HOSTPORT-DNAT; }
		}
		table inet ours { chain c { type nat hook prerouting priority -101; dnat ip to 10.9.9.9; }; }`)
	want(t, ns, `
		tcp 192.168.0.2/32 8083 to 10.0.0.2:83, local
		tcp 0.0.0.0/0 8080 to 10.0.0.2:80, local
		udp 0.0.0.0/0 8080 to 10.0.0.2:81, local
		tcp ::/0 8080 to [2001:db8::2]:80, local
		tcp 10.89.3.1/32 53 to 10.89.3.1:1053, local
		udp 10.89.3.1/32 53 to 10.89.3.1:1053, local
		tcp fd10:88:a::1/128 53 to [fd10:88:a::1]:1053, local
		udp fd10:88:a::1/128 53 to [fd10:88:a::1]:1053, local
		tcp 192.168.188.25/32 9080 to 10.88.0.14:8080, local
		udp 192.168.188.25/32 9080 to 10.88.0.14:8080, local
		tcp ::/0 9081 to [fd10:88:a::2]:81, local`)
}

// manyPorts are a thousand ports of Docker. A user without privileges may not send them at once.
func manyPorts(t testing.TB, ns *netns.NS) {
	t.Helper()
	testutil.Run(t, ns, "nft", `table ip nat {
		chain DOCKER { iifname docker0 return; }
		chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local jump DOCKER; };
	}`)
	const at = 50
	for first := 0; first < 1000; first += at {
		var b strings.Builder
		for i := first; i < first+at; i++ {
			fmt.Fprintf(&b, "add rule ip nat DOCKER iifname != docker0 tcp dport %d counter dnat to 172.17.%d.%d:80\n", 10000+i, i/250, i%250+2)
		}
		testutil.Run(t, ns, "nft", b.String())
	}
}

func TestAThousandForwards(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	manyPorts(t, ns)
	f := forwards(t, ruleset(t, ns))
	if len(f.All) != 1000 || len(f.Unclear) != 0 || f.All[999].String() != "tcp 0.0.0.0/0 10999 to 172.17.3.251:80, local" {
		t.Errorf("%d, %v, %v", len(f.All), f.Unclear, f.All[len(f.All)-1])
	}
}

func BenchmarkForwards(b *testing.B) {
	ns := netnstest.New(b)
	manyPorts(b, ns)
	r := ruleset(b, ns)
	b.ReportAllocs()
	for b.Loop() {
		if f, err := r.Forwards(b.Context()); err != nil || len(f.All) != 1000 {
			b.Fatal(err)
		}
	}
}

// What CNI's portmap itself makes, where it is installed.
func TestForwardsOfTheInstalledPortmap(t *testing.T) {
	t.Parallel()
	testutil.Witness(t, "iptables") // which the plugin runs
	plugin := ""
	for _, dir := range []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"} {
		if _, err := os.Stat(dir + "/portmap"); err == nil {
			plugin = dir + "/portmap"
			break
		}
	}
	if plugin == "" {
		t.Skip("CNI's portmap is not installed")
	}
	host, box := netnstest.New(t), netnstest.New(t)
	err := box.WithFd(func(fd int) error {
		cmd := host.Command(t.Context(), plugin)
		path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
		cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID=web", "CNI_IFNAME=eth0", "CNI_PATH="+filepath.Dir(plugin), "CNI_NETNS="+path)
		cmd.Stdin = strings.NewReader(`{"cniVersion": "0.4.0", "name": "net", "type": "portmap", "capabilities": {"portMappings": true},
			"runtimeConfig": {"portMappings": [
				{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
				{"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "203.0.113.1"},
				{"hostPort": 9, "containerPort": 10, "protocol": "sctp"}]},
			"prevResult": {"cniVersion": "0.4.0", "interfaces": [{"name": "eth0", "sandbox": "` + path + `"}],
				"ips": [{"version": "4", "address": "10.88.0.2/16", "interface": 0}], "routes": [{"dst": "0.0.0.0/0"}]}}`)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Skipf("%s cannot run here: %v, %s", plugin, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := listed(t, host) // the plugin makes the rules of the protocols in any order
	slices.Sort(got)
	if want := []string{
		"sctp 0.0.0.0/0 9 to 10.88.0.2:10, local", "tcp 0.0.0.0/0 8080 to 10.88.0.2:80, local", "udp 203.0.113.1/32 5353 to 10.88.0.2:53, local",
	}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
