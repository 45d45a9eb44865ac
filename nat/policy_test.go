package nat

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestRulesAsText(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix
	for _, c := range []struct {
		text, again string
		rule        Rule
	}{
		{"tcp 203.0.113.0/24 port 443", "", Rule{Proto: TCP, Peer: prefix("203.0.113.0/24"), Port: 443}},
		{"host udp port 53", "udp host port 53", Rule{Host: true, Proto: UDP, Port: 53}},
		{"10.0.0.0/8 except 10.1.0.0/16 except 10.2.0.0/16", "", Rule{Peer: prefix("10.0.0.0/8"), Except: prefixes("10.1.0.0/16", "10.2.0.0/16")}},
		{"192.0.2.1", "192.0.2.1/32", Rule{Peer: prefix("192.0.2.1/32")}},
		{"sctp 2001:db8::/32 port 1-9", "", Rule{Proto: SCTP, Peer: prefix("2001:db8::/32"), Port: 1, PortLast: 9}},
		{"tcp port 80-80", "tcp port 80", Rule{Proto: TCP, Port: 80}},
		{"icmp", "", Rule{Proto: ICMP}},
		{"protocol 47 ::/0", "", Rule{Proto: 47, Peer: prefix("::/0")}},
	} {
		var r Rule
		if err := r.UnmarshalText([]byte(c.text)); err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if want := c.rule; r.String() != want.String() || r.Peer != want.Peer || r.Host != want.Host || r.PortLast != want.PortLast {
			t.Errorf("%q is read as %+v, want %+v", c.text, r, want)
		}
		if c.again == "" {
			c.again = c.text
		}
		if r.String() != c.again {
			t.Errorf("%q is written as %q, want %q", c.text, r, c.again)
		}
	}
	for text, says := range map[string]string{
		"":                              "empty",
		"example.org":                   "names are not resolved here",
		"tcp udp port 80":               "a protocol twice",
		"tcp port":                      "missing at the end",
		"tcp port 0":                    "not a number from 1 to 65535",
		"tcp port 9-1":                  "below the first",
		"port 80":                       "needs a protocol",
		"icmp port 80":                  "has no ports",
		"protocol 256":                  "not a number",
		"10.0.0.1/8":                    "host bits",
		"10.0.0.0/8 10.0.0.0/8":         "a peer twice",
		"host 10.0.0.0/8":               "both Host and the peer",
		"except 10.0.0.0/8 tcp":         "needs a Peer",
		"fe80::1%eth0":                  "neither a prefix",
		"10.0.0.0/8 except 11.0.0.0/16": "not in the peer",
	} {
		var r Rule
		if err := r.UnmarshalText([]byte(text)); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

// What no policy can be is refused by name.
func TestPoliciesThatAreRefused(t *testing.T) {
	t.Parallel()
	box := addrs("10.88.0.2")
	rules := func(r ...Rule) *Rules { return &Rules{Allow: r} }
	peer := func(p string) Rule { return Rule{Peer: netip.MustParsePrefix(p)} }
	except := func(r Rule, e ...string) Rule { r.Except = prefixes(e...); return r }
	many := make([]Rule, MaxRules+1)
	for i := range many {
		many[i] = Rule{Proto: TCP, Port: uint16(i + 1)}
	}
	ok := Policy{Box: box, Owner: "web", Egress: rules()}
	for says, ps := range map[string][]Policy{
		"no address of a box":            {{Owner: "web", Egress: rules()}},
		"neither Egress nor Ingress":     {{Box: box, Owner: "web"}},
		"owner is empty":                 {{Box: box, Egress: rules()}},
		"address 1 of the box":           {{Box: []netip.Addr{box[0], {}}, Owner: "web", Egress: rules()}},
		"IPv4 address in IPv6 form":      {{Box: addrs("::ffff:10.88.0.2"), Owner: "web", Egress: rules()}},
		"has a zone":                     {{Box: addrs("fe80::1%eth0"), Owner: "web", Egress: rules()}},
		"link-local":                     {{Box: addrs("fe80::1"), Owner: "web", Egress: rules()}},
		"the address 10.88.0.2 twice":    {{Box: addrs("10.88.0.2", "10.88.0.2"), Owner: "web", Egress: rules()}},
		"put the rules of one box":       {ok, ok},
		"rule 0 of Egress: the rule is":  {{Box: box, Owner: "web", Egress: rules(Rule{})}},
		"of the family of fd00::/8":      {{Box: box, Owner: "web", Egress: rules(peer("fd00::/8"))}},
		"needs a protocol":               {{Box: box, Owner: "web", Egress: rules(Rule{Port: 80})}},
		"rule 1 of Ingress: the last":    {{Box: box, Owner: "web", Ingress: rules(peer("10.0.0.0/8"), Rule{Proto: TCP, Port: 9, PortLast: 8})}},
		"Host is for Egress":             {{Box: box, Owner: "web", Ingress: rules(Rule{Host: true})}},
		"overlap":                        {{Box: box, Owner: "web", Egress: rules(except(peer("10.0.0.0/8"), "10.1.0.0/16", "10.1.1.0/24"))}},
		"is all of the peer":             {{Box: box, Owner: "web", Egress: rules(except(peer("10.0.0.0/8"), "10.0.0.0/8"))}},
		"is not in the peer 10.0.0.0/8":  {{Box: box, Owner: "web", Egress: rules(except(peer("10.0.0.0/8"), "11.0.0.0/16"))}},
		"has host bits: 10.0.0.0/8":      {{Box: box, Owner: "web", Egress: rules(Rule{Peer: netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), 8)})}},
		"is not a valid prefix":          {{Box: box, Owner: "web", Egress: rules(Rule{Peer: netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33)})}},
		"has more than 4096 rules":       {{Box: box, Owner: "web", Egress: &Rules{Allow: many}}},
		"is IPv4 in IPv6 form":           {{Box: box, Owner: "web", Egress: rules(Rule{Peer: netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 104)})}},
		"no first":                       {{Box: box, Owner: "web", Egress: rules(Rule{Proto: TCP, PortLast: 80})}},
		"protocol 47 has no ports":       {{Box: box, Owner: "web", Egress: rules(Rule{Proto: 47, Port: 80})}},
		"both Host and the peer 10.0.0.": {{Box: box, Owner: "web", Egress: rules(Rule{Host: true, Peer: netip.MustParsePrefix("10.0.0.0/8")})}},
	} {
		if _, _, err := checkPolicies(ps); !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}
