package trace

import (
	"context"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// visitor is a connection from outside to a box, after the translation.
var visitor = Packet{
	In: Link{2, "up0"}, Out: Link{3, "br0"}, Dst: netip.MustParseAddr("10.88.0.2"), Proto: 6, Dport: 80, Translated: true,
}

// visitor6 is the same in IPv6.
var visitor6 = Packet{
	V6: true, In: Link{2, "up0"}, Out: Link{3, "br0"}, Dst: netip.MustParseAddr("fd88::2"), Proto: 17, Dport: 80, Translated: true,
}

// out is a connection of a box to the outside, and out6 the same in IPv6.
var (
	out  = Packet{In: Link{3, "br0"}, Out: Link{2, "up0"}, Src: netip.MustParseAddr("10.88.0.2"), Proto: 6, Dport: 443, Returns: true}
	out6 = Packet{V6: true, In: Link{3, "br0"}, Out: Link{2, "up0"}, Src: netip.MustParseAddr("fd88::2"), Proto: 6, Dport: 443, Returns: true}
)

func trace(t *testing.T, rules string, hook uint32, p Packet) string {
	t.Helper()
	ns := netnstest.New(t)
	_, err := testutil.Try(t, ns, "nft", rules)
	if strings.Contains(rules, "forward") && strings.Contains(rules, "fib saddr") {
		testutil.NeedKernel(t, 6, 1, "fib with the interface in a forward chain", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := nsconn.Shared(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Read(t.Context(), nft.New(c), func(_ byte, table string) bool { return table == "ours" })
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Trace(t.Context(), hook, math.MinInt32, math.MaxInt32, p)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, o := range found {
		s := "drop "
		if o.DNAT {
			s = "dnat "
		}
		if !o.Certain {
			s = "maybe " + s
		}
		if o.Handle == 0 {
			s += "policy "
		}
		all = append(all, s+o.Chain)
	}
	return strings.Join(all, ", ")
}

func TestOutcomesOfForwardChains(t *testing.T) {
	t.Parallel()
	const inet = "table inet f { %s chain c { type filter hook forward priority 0; policy %s; %s }; }"
	for _, c := range []struct {
		name, rest, policy, rules, want string
		packet                          Packet
	}{
		{"nothing", "", "accept", "", "", visitor},
		{"policy", "", "drop", "", "drop policy c", visitor},
		{"policy, accepted before", "", "drop", "accept;", "", visitor},
		{"a drop", "", "accept", "tcp dport 80 drop;", "drop c", visitor},
		{"a drop of another port", "", "accept", "tcp dport 81 drop;", "", visitor},
		{"a drop of another protocol", "", "accept", "udp dport 80 drop;", "", visitor},
		{"a reject", "", "accept", "meta l4proto tcp reject;", "drop c", visitor},
		{"by interface", "", "drop", `iifname "up0" oifname "br0" accept;`, "", visitor},
		{"by another interface", "", "drop", `iifname "docker0" accept;`, "drop policy c", visitor},
		{"by an unknown source", "", "drop", "ip saddr 192.0.2.0/24 accept;", "maybe drop policy c", visitor},
		{"by destination", "", "accept", "ip daddr 10.88.0.0/16 drop;", "drop c", visitor},
		{"by another destination", "", "accept", "ip daddr 10.89.0.0/16 drop;", "", visitor},
		{"the other family", "", "accept", "ip6 daddr fd88::/64 drop;", "", visitor},
		{"IPv6", "", "accept", "ip6 daddr fd88::/64 udp dport 80 drop;", "drop c", visitor6},
		{"states that it has not", "", "drop", "ct state established,related accept;", "drop policy c", visitor},
		{"states by a map", "", "drop", "ct state vmap { established : accept, related : accept, invalid : drop };", "drop policy c", visitor},
		{"a state that it has", "", "drop", "ct state new accept;", "", visitor},
		{"translated", "", "drop", "ct status dnat accept;", "", visitor},
		{"a set of ports", "", "accept", "tcp dport { 22, 80, 443 } drop;", "drop c", visitor},
		{"not in a set", "", "accept", "tcp dport != { 22, 80, 443 } drop;", "", visitor},
		{"a range", "", "accept", "tcp dport 70-90 drop;", "drop c", visitor},
		{"ranges", "", "accept", "tcp dport { 1-79, 81-100 } drop;", "", visitor},
		{"ranges with it", "", "accept", "tcp dport { 1-80, 90-100 } drop;", "drop c", visitor},
		{"a named set", "set s { type ipv4_addr; elements = { 10.88.0.2 }; };", "accept", "ip daddr @s drop;", "drop c", visitor},
		{"an empty set", "set s { type ipv4_addr; };", "accept", "ip daddr @s drop;", "", visitor},
		{"a drop by a map", "", "accept", "tcp dport vmap { 80 : drop, 81 : accept };", "drop c", visitor},
		{"a jump by a map", "chain d { drop; };", "accept", "tcp dport vmap { 80 : jump d };", "drop d", visitor},
		{"a jump", "chain d { drop; };", "accept", "tcp dport 80 jump d;", "drop d", visitor},
		{"a jump and back", "chain d { return; drop; };", "accept", "jump d; tcp dport 80 drop;", "drop c", visitor},
		{"a goto takes no way back", "chain d { tcp dport 81 accept; };", "drop", "goto d; accept;", "drop policy c", visitor},
		{"perhaps a jump", "chain d { drop; };", "accept", "meta mark 1 jump d;", "maybe drop d", visitor},
		{"a limit", "", "accept", "limit rate 1/second drop;", "maybe drop c", visitor},
		{"a counter and a comment", "", "accept", `counter log drop comment "no";`, "drop c", visitor},
		{"ranges of a concatenation without it", "set s { type ipv4_addr . inet_service; flags interval; elements = { 10.89.0.0/16 . 80 }; };", "accept", "ip daddr . tcp dport @s drop;", "", visitor},
		{"ranges of a concatenation perhaps with it", "set s { type ipv4_addr . inet_service; flags interval; elements = { 10.88.0.0/16 . 80 }; };", "accept", "ip daddr . tcp dport @s drop;", "maybe drop c", visitor},
		{"a stranger is not in the loopback network", "", "accept", "ip daddr 127.0.0.0/8 drop;", "", out},
		{"nor by its address", "", "accept", "ip daddr 127.0.0.1 drop;", "", out},
		{"a rule for all but that", "", "accept", "ip daddr != 127.0.0.0/8 drop;", "drop c", out},
		{"a stranger may be in another network", "", "accept", "ip daddr 203.0.113.0/24 drop;", "maybe drop c", out},
		{"a stranger may be in a wider network", "", "accept", "ip daddr 0.0.0.0/1 drop;", "maybe drop c", out},
		{"a stranger is no multicast group", "", "accept", "ip daddr & 240.0.0.0 == 224.0.0.0 drop;", "", out},
		{"a stranger is not in a set of such networks", "", "accept", "ip daddr { 127.0.0.0/8, 224.0.0.0/3 } drop;", "", out},
		{"a stranger may be in a set of others", "", "accept", "ip daddr { 127.0.0.0/8, 203.0.113.0/24 } drop;", "maybe drop c", out},
		{"what firewalld closes for RFC 3964", "", "accept", "ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24, 2002:a00::/24, 2002:e000::/19 } reject;", "", out6},
		{"a stranger's source is not in the loopback network", "", "accept", "ip saddr 127.0.0.0/8 drop;", "", visitor},
		{"a link-local source may be", "", "accept", "ip6 saddr fe80::/10 drop;", "maybe drop c", visitor6},
		{"the route back leads there", "", "accept", "fib saddr . iif oif missing drop;", "", out},
		{"as firewalld asks for it", "", "accept", "meta nfproto ipv6 fib saddr . mark . iif oif missing drop;", "", out6},
		{"the route back is not known", "", "accept", "fib saddr . iif oif missing drop;", "maybe drop c", visitor},
		{"an extension header that it has not", "", "accept", "rt type 0 drop;", "", out6},
		{"the lack of an extension header", "", "accept", "exthdr frag missing drop;", "drop c", out6},
		{"an option of TCP", "", "accept", "tcp option maxseg size 1-500 drop;", "maybe drop c", out6},
		{"after a certain drop nothing counts", "", "drop", "tcp dport 80 drop; accept;", "drop c", visitor},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rules := strings.Replace(strings.Replace(strings.Replace(inet, "%s", c.rest, 1), "%s", c.policy, 1), "%s", c.rules, 1)
			if got := trace(t, rules, unix.NF_INET_FORWARD, c.packet); got != c.want {
				t.Errorf("%q, want %q\n%s", got, c.want, rules)
			}
		})
	}
}

// What ufw's chain for IPv6 begins with concerns no connection of a box.
func TestOutcomesOfIptables(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	for _, rule := range []string{"-m rt --rt-type 0", "-m frag --fragmore"} {
		testutil.Run(t, ns, "ip6tables-nft", strings.Fields("-A FORWARD "+rule+" -j DROP")...)
	}
	found, err := ruleset(t, ns).Trace(t.Context(), unix.NF_INET_FORWARD, math.MinInt32, math.MaxInt32, out6)
	if err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
}

func TestOutcomesOfTranslation(t *testing.T) {
	t.Parallel()
	p := Packet{In: Link{2, "up0"}, Dst: netip.MustParseAddr("203.0.113.1"), Proto: 6, Dport: 8080, Local: true}
	const nat = "table ip n { chain c { type nat hook prerouting priority -110; %s }; }"
	for rules, want := range map[string]string{
		"tcp dport 8080 dnat to 10.0.0.1:80;":                                          "dnat c",
		"tcp dport 8081 dnat to 10.0.0.1:80;":                                          "",
		"fib daddr type local tcp dport 8080 redirect to :80;":                         "dnat c",
		"fib daddr type != local tcp dport 8080 dnat to 10.0.0.1;":                     "",
		"dnat to tcp dport map { 8080 : 10.0.0.1 };":                                   "dnat c",
		"dnat to tcp dport map { 8081 : 10.0.0.1 };":                                   "",
		"ip saddr 192.0.2.1 tcp dport 8080 dnat to 10.0.0.1;":                          "maybe dnat c",
		"ip daddr . tcp dport vmap { 203.0.113.1 . 8080 : accept }; dnat to 10.0.0.1;": "",
	} {
		if got := trace(t, strings.Replace(nat, "%s", rules, 1), unix.NF_INET_PRE_ROUTING, p); got != want {
			t.Errorf("%s: %q, want %q", rules, got, want)
		}
	}
}

func TestTheTablesExceptedAndOtherHooksAreLeftOut(t *testing.T) {
	t.Parallel()
	if got := trace(t, `table inet ours { chain c { type filter hook forward priority 0; policy drop; }; }
		table inet f { chain d { type filter hook input priority 0; policy drop; }; }
		table ip6 g { chain e { type filter hook forward priority 0; policy drop; }; }`, unix.NF_INET_FORWARD, visitor); got != "" {
		t.Errorf("%q", got)
	}
}

// FuzzRule wants no panic from whatever a kernel may say.
func FuzzRule(f *testing.F) {
	for _, name := range []string{"meta", "payload", "bitwise", "cmp", "range", "immediate", "match", "target", "fib", "ct"} {
		f.Add(name, []byte("\x08\x00\x01\x00\x00\x00\x00\x01\x08\x00\x02\x00\x00\x00\x00\x04"), "cmp", []byte("\x08\x00\x01\x00\x00\x00\x00\x01"))
	}
	// meta protocol, and a comparison of one of its bytes.
	f.Add("meta", []byte("\x08\x00\x02\x00\x00\x00\x00\x01\x08\x00\x01\x00\x00\x00\x00\x01"), "cmp",
		[]byte("\x08\x00\x01\x00\x00\x00\x00\x01\x08\x00\x02\x00\x00\x00\x00\x00\x0c\x00\x03\x00\x05\x00\x01\x00\x08\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, name string, data []byte, then string, more []byte) {
		if name == "lookup" || then == "lookup" {
			return // these ask the kernel
		}
		tr := tracing{ctx: context.Background(), rules: &Ruleset{}, packet: &visitor}
		rule := &nft.Rule{Exprs: []nft.Expr{{Name: name, Data: data}, {Name: then, Data: more}, {Name: "cmp", Data: data}, {Name: "nat", Data: more}}}
		_, _, _ = tr.rule(rule)
		w := walk{ctx: context.Background(), rules: &Ruleset{}}
		b := branch{walk: &w, rule: rule, then: func(*branch, statement) error { return nil }}
		_ = b.run(rule.Exprs)
	})
}
