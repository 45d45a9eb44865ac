package nfttext_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nfttext"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func lines(t testing.TB, ns *netns.NS) []string {
	t.Helper()
	c, err := nsconn.Shared(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	r, err := nfttext.Read(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r.Lines(nfttext.Options{})
}

var (
	blanks  = regexp.MustCompile(`\s+`)
	expires = regexp.MustCompile(` expires [0-9a-z]+`)
	braces  = regexp.MustCompile(`\{ ([^{}]*) \}`)
)

// normal is a listing by lines of one form: each chain's and set's settings and each rule are
// a line of their own, and the elements of a set are sorted.
func normal(text string) []string {
	text = expires.ReplaceAllString(text, "")
	// Elements may be spread over lines.
	text = regexp.MustCompile(`,\s*\n\s*`).ReplaceAllString(text, ", ")
	text = regexp.MustCompile(`elements = \{\s*`).ReplaceAllString(text, "elements = { ")
	text = regexp.MustCompile(`(elements = \{[^\n]*?)\s*\n?\s*\} ?(\}?)\n`).ReplaceAllString(text, "$1 }\n$2\n")
	text = braces.ReplaceAllStringFunc(text, func(s string) string {
		all := strings.Split(s[2:len(s)-2], ", ")
		slices.Sort(all)
		return "{ " + strings.Join(all, ", ") + " }"
	})
	var all []string
	where := ""
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(blanks.ReplaceAllString(line, " "))
		if line == "" || line == "}" {
			continue
		}
		head := regexp.MustCompile(`^(table|set|map|chain|counter|quota|limit|flowtable|ct helper) [^{}]* \{ ?`).FindString(line)
		if head == "" {
			head = regexp.MustCompile(`^(counter|quota|limit) [^{} ]* \{ ?`).FindString(line)
		}
		rest := strings.TrimSpace(line[len(head):])
		if head != "" {
			where = strings.TrimSuffix(strings.TrimSpace(head), " {")
			if strings.HasPrefix(head, "set ") || strings.HasPrefix(head, "map ") || strings.Contains(rest, "}") {
				rest = strings.TrimSpace(strings.TrimSuffix(rest, "}"))
				if !strings.HasPrefix(head, "set ") && !strings.HasPrefix(head, "map ") {
					all = append(all, where+": "+rest)
					continue
				}
				for rest != "" {
					part := ""
					if strings.HasPrefix(rest, "elements") {
						part, rest = rest, ""
						if strings.Count(part, "{") > strings.Count(part, "}") {
							part += " }"
						}
					} else {
						part, rest, _ = strings.Cut(rest, ";")
					}
					all = append(all, where+": "+strings.TrimSpace(part))
					rest = strings.TrimSpace(rest)
				}
				continue
			}
			if strings.HasPrefix(head, "table ") || strings.HasPrefix(head, "chain ") {
				all = append(all, where)
			}
		}
		if rest != "" {
			all = append(all, where+": "+rest)
		}
	}
	return all
}

// compare wants the listing to be nft's.
func compare(t *testing.T, ns *netns.NS) {
	t.Helper()
	ours := strings.Join(lines(t, ns), "\n") + "\n"
	nfts := testutil.Run(t, ns, "nft", "list", "ruleset")
	// Without a statement about the link's type before it, nft writes bytes.
	nfts = strings.ReplaceAll(nfts, "@ll,0,48 & 0xfffffffffff0 == 0x180c2000000", "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00")
	got, want := normal(ours), normal(nfts)
	missing := without(want, got)
	extra := without(got, want)
	for i := range max(len(missing), len(extra)) {
		line := ""
		if i < len(missing) {
			line += "\n  nft  " + missing[i]
		}
		if i < len(extra) {
			line += "\n  ours " + extra[i]
		}
		t.Error(line)
	}
	for i := range got {
		if !t.Failed() && got[i] != want[i] {
			t.Errorf("the order differs:\n  nft  %s\n  ours %s", want[i], got[i])
		}
	}
}

// without are the lines of a that b has not, each as often as it is there.
func without(a, b []string) (all []string) {
	count := map[string]int{}
	for _, s := range b {
		count[s]++
	}
	for _, s := range a {
		if count[s]--; count[s] < 0 {
			all = append(all, s)
		}
	}
	return all
}

func TestListingIsNftsOwn(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "nft", "-f", "testdata/tables.nft")
	if out, err := testutil.Try(t, ns, "nft", "add element inet t m1 { * : drop }"); err != nil { // >= 5.13
		t.Logf("no element for all other keys: %v, %s", err, out)
	}
	rules, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	refused, all := 0, 0
	load := func(commands []string) error {
		out, err := testutil.Try(t, ns, "nft", strings.Join(commands, "\n"))
		if err != nil && len(commands) == 1 {
			t.Logf("%s: refused: %v, %s", commands[0], err, out)
			refused++
		}
		return err
	}
	var commands []string
	for line := range strings.Lines(string(rules)) {
		if at, rule, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && !strings.HasPrefix(line, "#") {
			commands = append(commands, fmt.Sprintf("add rule %s %s", at, rule))
			all++
		}
	}
	// A kernel may lack something that a rule asks for.
	for some := range slices.Chunk(commands, 10) {
		if load(some) != nil {
			for i := range some {
				_ = load(some[i : i+1])
			}
		}
	}
	if refused > all/20 {
		t.Errorf("nft refuses %d of %d rules", refused, all)
	}
	compare(t, ns)
}

// What package nat makes of a table is in its golden files, as nft lists it.
func TestOurOwnTableIsListedAsNftDoes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../nat/testdata/golden/*.nft")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			testutil.LoadNFT(t, ns, f)
			compare(t, ns)
		})
	}
}

// Rules as Docker, CNI's portmap and others make them with iptables-nft. nft lists them in words
// of its own where iptables' libraries are there, so that these are written by hand.
func TestRulesOfIptables(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "iptables-nft", "-t", "nat", "-N", "D")
	for args, want := range map[string]string{
		"-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j D":                               `xt match "addrtype" dst-type LOCAL counter packets 0 bytes 0 jump D`,
		"-t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j D":                  `ip daddr != 127.0.0.0/8 xt match "addrtype" dst-type LOCAL counter packets 0 bytes 0 jump D`,
		"-t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE":                    `oifname != "docker0" ip saddr 172.17.0.0/16 counter packets 0 bytes 0 xt target "MASQUERADE"`,
		"-t nat -A D -i docker0 -j RETURN":                                                     `iifname "docker0" counter packets 0 bytes 0 return`,
		"-t nat -A D ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80":  `iifname != "docker0" tcp dport 8080 counter packets 0 bytes 0 xt target "DNAT" to 172.17.0.2:80`,
		"-t nat -A D -p udp -j DNAT --to-destination 172.17.0.2-172.17.0.5:53-60 --random":     `meta l4proto udp counter packets 0 bytes 0 xt target "DNAT" to 172.17.0.2-172.17.0.5:53-60 random`,
		"-t nat -A D -p tcp -m comment --comment a-b -m multiport --dports 80,81:90 -j RETURN": `meta l4proto tcp xt match "comment" "a-b" xt match "multiport" dport 80,81-90 counter packets 0 bytes 0 return`,
		"-t nat -A D -p sctp --dport 7 -j DNAT --to-destination 10.0.0.1":                      `meta l4proto sctp xt match "sctp" dport 7 counter packets 0 bytes 0 xt target "DNAT" to 10.0.0.1`,
		"-t nat -A D -j MARK --set-xmark 0x2000/0x2000":                                        `counter packets 0 bytes 0 xt target "MARK" set 0x2000/0x2000`,
		"-t nat -A POSTROUTING -m mark --mark 0x2000/0x2000 -j MASQUERADE":                     `xt match "mark" 0x2000/0x2000 counter || meta mark & 0x00002000 == 0x00002000 counter`,
		"-t nat -A POSTROUTING -p tcp -j MASQUERADE --to-ports 1000-2000 --random":             `meta l4proto tcp counter packets 0 bytes 0 xt target "MASQUERADE" to :1000-2000 random`,
		"-t nat -A PREROUTING -p tcp -j REDIRECT --to-ports 99":                                `meta l4proto tcp counter packets 0 bytes 0 xt target "REDIRECT" to :99`,
		"-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT":                      `xt match "conntrack" ctstate ESTABLISHED,RELATED counter packets 0 bytes 0 accept`,
		"-A FORWARD -m limit --limit 5/min -j LOG --log-prefix drop:":                          `xt target "LOG" level 4 prefix "drop:" || log prefix "drop:"`,
		"-A FORWARD -m statistic --mode random --probability 0.5 -j ACCEPT":                    `xt match "statistic" (rev 0, 24 bytes) counter packets 0 bytes 0 accept`,
		"-A FORWARD -p tcp -m iprange --src-range 1.1.1.1-1.1.1.9 -j REJECT":                   `meta l4proto tcp xt match "iprange" src 1.1.1.1-1.1.1.9 counter packets 0 bytes 0 xt target "REJECT" with icmp-port-unreachable`,
		"-A INPUT -m mac --mac-source 00:11:22:33:44:55 -j DROP":                               `xt match "mac" source 00:11:22:33:44:55 counter packets 0 bytes 0 drop`,
		"-A OUTPUT -m owner --uid-owner 5 -j ACCEPT":                                           `xt match "owner" uid 5 counter packets 0 bytes 0 accept`,
		"-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu":              `xt target "TCPMSS" clamp to pmtu`,
		"6 -t nat -A PREROUTING -p tcp --dport 8086 -j DNAT --to-destination [fd00::2]:80":     `tcp dport 8086 counter packets 0 bytes 0 xt target "DNAT" to [fd00::2]:80`,
		"6 -A INPUT -p icmpv6 --icmpv6-type 135 -j ACCEPT":                                     `xt match "icmp6" type 135 counter packets 0 bytes 0 accept`,
		"6 -A INPUT -j REJECT": `counter packets 0 bytes 0 xt target "REJECT" with icmp6-port-unreachable`,
	} {
		tool := "iptables-nft"
		if rest, ok := strings.CutPrefix(args, "6 "); ok {
			tool, args = "ip6tables-nft", rest
		}
		if out, err := testutil.Try(t, ns, tool, strings.Fields(args)...); err != nil {
			t.Logf("%s refuses %s: %v, %s", tool, args, err, out)
			continue
		}
		if all := strings.Join(lines(t, ns), "\n"); !slices.ContainsFunc(strings.Split(want, " || "), func(s string) bool { return strings.Contains(all, s) }) {
			t.Errorf("%s\nwants %s\nof\n%s", args, want, all)
		}
	}
}
