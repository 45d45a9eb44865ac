package nfttext

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// printable reports whether a terminal shows a text as it is.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '\t' && !unicode.IsPrint(r) || r == unicode.ReplacementChar
	})
}

func TestOddNamesAndCommentsAreEscaped(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"web": `"web"`, "": `""`, "a b": `"a b"`, `a"b`: `"a\"b"`, "a\x1b[31mb": `"a\x1b[31mb"`, "a\nb": `"a\nb"`,
		"\xff": `"\xff"`, "ü": `"ü"`, "a\u202eb": `"a\u202eb"`,
	} {
		if got := quoted(s); got != want {
			t.Errorf("quoted(%q) = %s, want %s", s, got, want)
		}
	}
	for s, want := range map[string]string{"a-b_c.d": "a-b_c.d", "": `""`, "a b": `"a b"`, "a\x1b": `"a\x1b"`, "{": `"{"`} {
		if got := name(s); got != want {
			t.Errorf("name(%q) = %s, want %s", s, got, want)
		}
	}
	table := &Table{
		Family: unix.NFPROTO_INET, Name: "a\x1b", Comment: "b\x1b",
		Chains: []*Chain{{Family: unix.NFPROTO_INET, Name: "c\x1b", Type: "nat\x1b", Devices: []string{"d\x1b"}, Rules: []Rule{{
			Comment: "e\x1b",
			Exprs: []Expr{
				{Name: "f\x1b"},
				{Name: "lookup", Data: nl.AppendString(nil, unix.NFTA_LOOKUP_SET, "g\x1b")},
				{Name: "match", Data: nl.AppendString(nil, xtName, "h\x1b")},
				{Name: "log", Data: nl.AppendString(nil, unix.NFTA_LOG_PREFIX, "i\x1b")},
			},
		}}}},
		Sets:    []*Set{{Name: "j\x1b", Key: typesOf(41), Comment: "k\x1b", Elements: []Element{{Key: []byte("l\x1b\x00"), Comment: "m\x1b", Object: "n\x1b"}}}},
		Objects: []Object{{Name: "o\x1b", Comment: "p\x1b"}}, FlowTables: []FlowTable{{Name: "q\x1b", Devices: []string{"r\x1b"}}},
	}
	text := strings.Join(table.Lines(Options{Link: func(uint32) string { return "s\x1b" }}), "\n")
	if !printable(strings.ReplaceAll(text, "\n", "")) || strings.Count(text, `\x1b`) != 19 {
		t.Errorf("%q", text)
	}
}

func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	many := make([]Expr, 100000)
	for i := range many {
		many[i].Name = "counter"
	}
	w := &Writer{Family: unix.NFPROTO_INET}
	if s := w.Rule(many, ""); len(s) > 2*maxRule || !strings.HasSuffix(s, "<more>") {
		t.Errorf("%d bytes, ... %s", len(s), s[len(s)-50:])
	}
	set := &Set{Name: "__set0", Flags: unix.NFT_SET_ANONYMOUS, Key: typesOf(13)}
	for i := range 1000 {
		set.Elements = append(set.Elements, Element{Key: []byte{byte(i >> 8), byte(i)}})
	}
	w.Set = func(string) *Set { return set }
	s := w.Rule([]Expr{{Name: "lookup", Data: nl.AppendString(nil, unix.NFTA_LOOKUP_SET, "__set0")}}, "")
	if !strings.Contains(s, "{ 0, 1, 2,") || !strings.HasSuffix(s, fmt.Sprintf("%d, and %d more }", maxInline-1, 1000-maxInline)) {
		t.Error(s)
	}
}

// What is not known has its name, and no bytes.
func TestUnknownExpressionsAreNamed(t *testing.T) {
	t.Parallel()
	w := &Writer{Family: unix.NFPROTO_INET}
	for want, e := range map[string]Expr{
		"<brandnew>":                           {Name: "brandnew", Data: []byte{8, 0, 1, 0, 1, 2, 3, 4}},
		`xt match "x" (rev 0, 0 bytes)`:        {Name: "match", Data: nl.AppendString(nil, xtName, "x")},
		"<verdict 77>":                         {Name: "immediate", Data: verdict(77)},
		"flow add @f":                          {Name: "flow_offload", Data: nl.AppendString(nil, 1, "f")},
		"meta mark set <unknown>":              {Name: "meta", Data: nl.AppendBE32(nl.AppendBE32(nil, unix.NFTA_META_KEY, unix.NFT_META_MARK), unix.NFTA_META_SREG, 1)},
		"<meta 99> set <unknown>":              {Name: "meta", Data: nl.AppendBE32(nl.AppendBE32(nil, unix.NFTA_META_KEY, 99), unix.NFTA_META_SREG, 1)},
		"dnat ip to <unknown>":                 {Name: "nat", Data: nl.AppendBE32(nl.AppendBE32(nil, unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT), unix.NFTA_NAT_REG_ADDR_MIN, 1)},
		"counter packets 0 bytes 0 <brandnew>": {Name: "counter"},
	} {
		exprs := []Expr{e}
		if e.Name == "counter" {
			exprs = append(exprs, Expr{Name: "brandnew"})
		}
		if got := w.Rule(exprs, ""); strings.TrimPrefix(got, "meta ") != strings.TrimPrefix(want, "meta ") {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func verdict(code uint32) []byte {
	m, data := nl.Begin(nil, unix.NFTA_IMMEDIATE_DATA)
	m, v := nl.Begin(m, unix.NFTA_DATA_VERDICT)
	m = nl.AppendBE32(m, unix.NFTA_VERDICT_CODE, code)
	nl.End(m, v)
	nl.End(m, data)
	return m
}

// FuzzRule wants no panic, no unprintable byte and a bounded text from whatever a kernel may say.
func FuzzRule(f *testing.F) {
	attributes := []byte("\x08\x00\x01\x00\x00\x00\x00\x01\x08\x00\x02\x00\x00\x00\x00\x04\x0c\x00\x03\x00\x08\x00\x01\x00\x00\x00\x00\x01")
	for e := range expressions {
		f.Add(byte(unix.NFPROTO_INET), "payload", attributes, e, attributes)
		f.Add(byte(unix.NFPROTO_IPV4), e, attributes, "cmp", attributes)
	}
	f.Fuzz(func(t *testing.T, family byte, name string, data []byte, then string, more []byte) {
		set := &Set{Flags: unix.NFT_SET_ANONYMOUS | unix.NFT_SET_INTERVAL, Key: typesOf(7<<6 | 13), Data: typesOf(41)}
		_ = decodeElements(append([]byte{family, 0, 0, 0}, more...), func(e Element) { set.Elements = append(set.Elements, e) })
		w := &Writer{Family: family, Set: func(string) *Set { return set }}
		s := w.Rule([]Expr{{name, data}, {then, more}, {"cmp", data}, {then, data}, {"nat", more}}, name)
		if !printable(s) || len(s) > 2*maxRule+16*maxInline*(len(data)+len(more)+len(name)+64) {
			t.Errorf("%d bytes: %q", len(s), s)
		}
	})
}

// FuzzMessages wants the same of messages.
func FuzzMessages(f *testing.F) {
	m := nl.AppendString([]byte{1, 0, 0, 0}, unix.NFTA_SET_TABLE, "t")
	m = nl.AppendBE32(m, unix.NFTA_SET_KEY_TYPE, 7)
	m = nl.AppendAttr(m, unix.NFTA_SET_USERDATA, []byte{3, 14, 0, 4, 9, 0, 0, 0, 1, 6, 0, 4, 6, 0, 0, 0})
	f.Add(m)
	f.Fuzz(func(t *testing.T, b []byte) {
		table, _ := decodeTable(b)
		if s, err := decodeSet(b); err == nil {
			_ = decodeElements(b, func(e Element) { s.Elements = append(s.Elements, e) })
			table.Sets = append(table.Sets, s)
		}
		if c, err := DecodeChain(b); err == nil {
			_, r, _ := DecodeRule(b)
			c.Rules = append(c.Rules, r)
			table.Chains = append(table.Chains, c)
		}
		if o, err := decodeObject(b); err == nil {
			table.Objects = append(table.Objects, o)
		}
		if x, err := decodeFlowTable(b); err == nil {
			table.FlowTables = append(table.FlowTables, x)
		}
		for _, line := range table.Lines(Options{Elements: 10}) {
			if !printable(line) {
				t.Errorf("%q", line)
			}
		}
	})
}
