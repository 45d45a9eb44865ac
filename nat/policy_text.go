package nat

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// String returns the rule as [Rule.UnmarshalText] reads it: "tcp 203.0.113.0/24 port 443",
// "udp host port 53", "10.0.0.0/8 except 10.1.0.0/16 except 10.2.0.0/16", "tcp port 8000-8999".
func (r Rule) String() string {
	var words []string
	switch {
	case r.Proto == 0:
	case r.Proto == ICMP || r.Proto.check() == nil:
		words = append(words, r.Proto.String())
	default:
		words = append(words, "protocol", strconv.Itoa(int(r.Proto)))
	}
	if r.Host {
		words = append(words, "host")
	}
	if r.Peer.IsValid() {
		words = append(words, r.Peer.String())
	}
	for _, e := range r.Except {
		words = append(words, "except", e.String())
	}
	switch {
	case r.Port != 0 && r.last() != r.Port:
		words = append(words, "port", fmt.Sprintf("%d-%d", r.Port, r.PortLast))
	case r.Port != 0:
		words = append(words, "port", strconv.Itoa(int(r.Port)))
	}
	return strings.Join(words, " ")
}

// MarshalText returns the rule as [Rule.String] does.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a rule: words in any order, each at most once except "except". They are a
// protocol (tcp, udp, sctp, icmp, or "protocol" and a number), "host", the peer as a prefix or an
// address, "except" and a prefix, "port" and a number or two with '-'.
//
// Errors: os.ErrInvalid for anything that is not such a rule, or that [NAT.SetPolicies] refuses for
// every box.
func (r *Rule) UnmarshalText(text []byte) error {
	read := ruleText{words: strings.Fields(string(text))}
	for len(read.words) > 0 && read.err == nil {
		read.word()
	}
	if read.err == nil {
		read.rule, read.err = read.rule.checked()
	}
	if read.err != nil {
		return refuse.Input("the rule %q: %w", text, read.err)
	}
	*r = read.rule
	return nil
}

// ruleText is a rule that is being read.
type ruleText struct {
	words []string // that are left
	rule  Rule
	err   error // the first one
}

// next takes the next word. what names it, should it be missing.
func (t *ruleText) next(what string) string {
	if len(t.words) == 0 {
		t.err = refuse.Input("%s is missing at the end", what)
		return ""
	}
	word := t.words[0]
	t.words = t.words[1:]
	return word
}

// word reads a part of the rule.
func (t *ruleText) word() {
	switch w := t.next("a word"); w {
	case "tcp":
		t.proto(TCP)
	case "udp":
		t.proto(UDP)
	case "sctp":
		t.proto(SCTP)
	case "icmp":
		t.proto(ICMP)
	case "protocol":
		t.proto(Proto(t.number(t.next("the number of a protocol"), 8)))
	case "host":
		t.once(w, t.rule.Host)
		t.rule.Host = true
	case "except":
		t.rule.Except = append(t.rule.Except, t.prefix(t.next("a prefix")))
	case "port":
		t.once(w, t.rule.Port != 0)
		first, last, ranged := strings.Cut(t.next("a port"), "-")
		t.rule.Port = uint16(t.number(first, 16))
		if ranged {
			t.rule.PortLast = uint16(t.number(last, 16))
		}
	default:
		t.once("a peer", t.rule.Peer.IsValid())
		t.rule.Peer = t.prefix(w)
	}
}

func (t *ruleText) proto(p Proto) {
	t.once("a protocol", t.rule.Proto != 0)
	t.rule.Proto = p
}

// once refuses a second part of one kind.
func (t *ruleText) once(what string, again bool) {
	if again && t.err == nil {
		t.err = refuse.Input("it has %s twice", what)
	}
}

// number reads a decimal number that is not 0.
func (t *ruleText) number(word string, bits int) uint64 {
	n, err := strconv.ParseUint(word, 10, bits)
	if (err != nil || n == 0) && t.err == nil {
		t.err = refuse.Input("%q is not a number from 1 to %d", word, uint64(1)<<bits-1)
	}
	return n
}

// prefix reads a prefix; an address is the prefix of itself.
func (t *ruleText) prefix(word string) netip.Prefix {
	if p, err := netip.ParsePrefix(word); err == nil {
		return p
	}
	a, err := netip.ParseAddr(word)
	if (err != nil || a.Zone() != "") && t.err == nil {
		t.err = refuse.Input("%q is neither a prefix nor a word of a rule (names are not resolved here)", word)
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// The record of a policy is kept in the kernel as text, for List and Sync to read back what the
// elements do not say any more. It is "owner", a line a rule and what else there is:
//
//	web
//	10.88.0.2 fd88::2
//	refuse
//	out
//	> tcp 203.0.113.0/24 port 443
//	in
//	< tcp port 80
//
// The lines are joined by '|', which occurs in none but the owner's; the owner's is quoted. The
// second line has the addresses of the box.

// record returns the text of a policy.
func (p Policy) record() string {
	var b strings.Builder
	b.WriteString(strings.NewReplacer(`\`, `\\`, `|`, `\p`).Replace(p.Owner))
	b.WriteByte('|')
	for i, a := range p.Box {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.String())
	}
	if p.Refuse {
		b.WriteString("|refuse")
	}
	write := func(name, sign string, rs *Rules) {
		if rs == nil {
			return
		}
		b.WriteString("|" + name)
		for _, r := range rs.Allow {
			b.WriteString("|" + sign + r.String())
		}
	}
	write("out", ">", p.Egress)
	write("in", "<", p.Ingress)
	return b.String()
}

// parseRecord is the inverse of record.
func parseRecord(text string) (p Policy, err error) {
	lines := strings.Split(text, "|")
	if len(lines) < 2 {
		return Policy{}, fmt.Errorf("the record of a policy: %q is none", text)
	}
	p.Owner = strings.NewReplacer(`\\`, `\`, `\p`, `|`).Replace(lines[0])
	for word := range strings.FieldsSeq(lines[1]) {
		a, err := netip.ParseAddr(word)
		if err != nil {
			return Policy{}, fmt.Errorf("the record of a policy: %w", err)
		}
		p.Box = append(p.Box, a)
	}
	for _, line := range lines[2:] {
		switch {
		case line == "refuse":
			p.Refuse = true
		case line == "out":
			p.Egress = new(Rules)
		case line == "in":
			p.Ingress = new(Rules)
		case strings.HasPrefix(line, ">"):
			err = p.Egress.add(line[1:])
		case strings.HasPrefix(line, "<"):
			err = p.Ingress.add(line[1:])
		default:
			err = refuse.Input("%q is no part of a policy", line)
		}
		if err != nil {
			return Policy{}, fmt.Errorf("the record of a policy: %w", err)
		}
	}
	return p, nil
}

// add reads a rule of a record.
func (rs *Rules) add(text string) error {
	if rs == nil {
		return refuse.Input("the rule %q has no direction", text)
	}
	var r Rule
	err := r.UnmarshalText([]byte(text))
	rs.Allow = append(rs.Allow, r)
	return err
}
