package scene

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// State is the network state of a host, a line for each thing, as ip and nft show it.
type State []string

// changing is what changes by itself, or with each packet.
var changing = regexp.MustCompile(`(valid_lft|preferred_lft|expires|packets|bytes) \S+|\b(tentative|linkdown|handle \d+)\b|forever| (UNKNOWN|UP|DOWN|LOWERLAYERDOWN) `)

// byItself are routes that come when the kernel has checked a link-local address.
var byItself = regexp.MustCompile(`^(local|anycast) fe80::|multicast ff00::/8`)

// State reads addresses, links, routes, rules, next hops, permanent neighbours, some settings and the ruleset.
func (h *Host) State(t testing.TB) State {
	t.Helper()
	var s State
	for _, c := range []struct{ what, command string }{
		{"address", "ip -o addr show"},
		{"link", "ip -o -br link show"},
		{"port", "bridge -o link show"},
		{"route", "ip -o route show table all"},
		{"rule", "ip -o rule show"},
		{"rule", "ip -o -6 rule show"},
		{"next hop", "ip -o nexthop show"},
		{"neighbour", "ip -o neigh show nud permanent"},
		{"setting", "grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"},
		{"setting", "grep -H . -r /proc/sys/net/ipv4/conf --include=forwarding --include=route_localnet --include=rp_filter --include=arp_ignore"},
		{"setting", "grep -H . -r /proc/sys/net/ipv6/conf --include=forwarding --include=disable_ipv6"},
		{"nft", "nft list ruleset"},
	} {
		args := strings.Fields(c.command)
		for line := range strings.Lines(h.M.Run(t, args[0], args[1:]...)) {
			line = strings.Join(strings.Fields(changing.ReplaceAllString(line, "")), " ")
			if line != "" && !byItself.MatchString(line) {
				s = append(s, c.what+" "+line)
			}
		}
	}
	return s
}

// Without is the state without lines that match.
func (s State) Without(pattern string) State {
	re := regexp.MustCompile(pattern)
	return slices.DeleteFunc(slices.Clone(s), re.MatchString)
}

// CheckState checks that the state is as it was but for what one of the patterns matches: lines of the old state
// that are gone, with "-" before them, or of the new one, with "+". Each pattern must match some,
// but for those with "maybe " before them.
func CheckState(t testing.TB, when string, was, is State, but ...string) {
	t.Helper()
	left := make([]*regexp.Regexp, len(but))
	matched := make([]bool, len(but))
	for i, p := range but {
		p, matched[i] = strings.CutPrefix(p, "maybe ")
		left[i] = regexp.MustCompile(p)
	}
	var bad []string
	for _, line := range append(minus("-", was, is), minus("+", is, was)...) {
		i := slices.IndexFunc(left, func(re *regexp.Regexp) bool { return re.MatchString(line) })
		if i < 0 {
			bad = append(bad, line)
			continue
		}
		matched[i] = true
	}
	if len(bad) > 0 {
		t.Errorf("scene: %s: the host has changed:\n%s", when, strings.Join(bad, "\n"))
	}
	for i, ok := range matched {
		if !ok {
			t.Errorf("scene: %s: nothing has changed that matches %q", when, but[i])
		}
	}
}

// minus are the lines of a that b does not have as often.
func minus(sign string, a, b State) (lines []string) {
	count := map[string]int{}
	for _, line := range b {
		count[line]++
	}
	for _, line := range a {
		if count[line]--; count[line] < 0 {
			lines = append(lines, sign+line)
		}
	}
	return lines
}
