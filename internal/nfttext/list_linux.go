package nfttext

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Options say how a ruleset is listed.
type Options struct {
	// Elements is how many elements of a set are listed at most; 0 is all.
	Elements int

	// Link is as in Writer.
	Link func(index uint32) string
}

// Lines lists the ruleset as `nft list ruleset` does, but that a set without elements has
// one line, and each element one of its own. Lines begin with tabs.
func (r *Ruleset) Lines(o Options) []string {
	var all []string
	for _, t := range r.Tables {
		all = append(all, t.Lines(o)...)
	}
	return all
}

// Writer returns a writer for the table's rules.
func (t *Table) Writer(link func(index uint32) string) *Writer {
	return &Writer{Family: t.Family, Set: func(name string) *Set { return t.sets[name] }, Link: link}
}

// Lines is [Ruleset.Lines] for one table.
func (t *Table) Lines(o Options) []string {
	w := t.Writer(o.Link)
	l := lister{w: w, max: o.Elements}
	l.line(0, "table %s %s {", FamilyName(t.Family), name(t.Name))
	if t.Comment != "" {
		l.line(1, "comment %s", quoted(t.Comment))
	}
	if t.Dormant {
		l.line(1, "flags dormant")
	}
	for i := range t.Objects {
		l.object(&t.Objects[i])
	}
	for _, s := range t.Sets {
		l.set(s)
	}
	for i := range t.FlowTables {
		l.flowTable(&t.FlowTables[i])
	}
	for _, c := range t.Chains {
		l.chain(c)
	}
	l.line(0, "}")
	return l.lines
}

type lister struct {
	w     *Writer
	max   int // elements of a set; 0 for all
	lines []string
}

func (l *lister) line(depth int, format string, args ...any) {
	l.lines = append(l.lines, strings.Repeat("\t", depth)+fmt.Sprintf(format, args...))
}

// settings are what a set says about itself, each with nft's words.
func (l *lister) settings(s *Set) []string {
	key := typeNames(s.Key)
	word := "type"
	if s.keyOf != "" {
		key, word = s.keyOf, "typeof"
	}
	switch {
	case s.Verdicts:
		key += " : verdict"
	case s.Object != 0:
		key += " : " + objectNames.text(uint64(s.Object))
	case s.Data != nil && word == "typeof" && s.dataOf != "":
		key += " : " + s.dataOf
	case s.dataRange:
		key += " : interval " + typeNames(s.Data)
	case s.isMap():
		key += " : " + typeNames(s.Data)
	}
	all := []string{word + " " + key}
	if s.Memory {
		all = append(all, "policy memory")
	}
	if s.Size != 0 && s.Flags&unix.NFT_SET_CONSTANT == 0 {
		all = append(all, fmt.Sprintf("size %d", s.Size))
	}
	var flags []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{{unix.NFT_SET_CONSTANT, "constant"}, {unix.NFT_SET_EVAL, "dynamic"}, {unix.NFT_SET_INTERVAL, "interval"}, {unix.NFT_SET_TIMEOUT, "timeout"}} {
		if s.Flags&f.bit != 0 {
			flags = append(flags, f.name)
		}
	}
	if flags != nil {
		all = append(all, "flags "+strings.Join(flags, ","))
	}
	if s.AutoMerge {
		all = append(all, "auto-merge")
	}
	if s.Exprs != nil {
		all = append(all, l.w.fresh(s.Exprs))
	}
	if s.Timeout != 0 {
		all = append(all, "timeout "+duration(s.Timeout))
	}
	if s.GC != 0 {
		all = append(all, "gc-interval "+duration(s.GC))
	}
	if s.Comment != "" {
		all = append(all, "comment "+quoted(s.Comment))
	}
	return all
}

func (l *lister) set(s *Set) {
	word := "set"
	if s.isMap() {
		word = "map"
	}
	head := fmt.Sprintf("%s %s { %s;", word, name(s.Name), strings.Join(l.settings(s), "; "))
	if len(s.Elements) == 0 {
		l.line(1, "%s }", head)
		return
	}
	max := l.max
	if max == 0 {
		max = len(s.Elements)
	}
	elems, more := l.w.elements(s, max)
	l.line(1, "%s elements = {", head)
	for i, e := range elems {
		if i < len(elems)-1 || more > 0 {
			e += ","
		}
		l.line(2, "%s", e)
	}
	if more > 0 {
		l.line(2, "and %d more", more)
	}
	l.line(1, "} }")
}

func (l *lister) object(o *Object) {
	a := parse(o.Data)
	text := ""
	switch o.Type {
	case unix.NFT_OBJECT_COUNTER:
		text = fmt.Sprintf("packets %d bytes %d", a.u64(unix.NFTA_COUNTER_PACKETS), a.u64(unix.NFTA_COUNTER_BYTES))
	case unix.NFT_OBJECT_QUOTA:
		text = quotaText(&a)
	case unix.NFT_OBJECT_LIMIT:
		text = limitText(&a)
	case unix.NFT_OBJECT_SYNPROXY:
		text = synproxyText(&a)
	case unix.NFT_OBJECT_CT_HELPER:
		const ctName, l4 = 1, 3 // NFTA_CT_HELPER_*
		text = fmt.Sprintf("type %s protocol %s", quoted(a.text(ctName)), l.w.value(protoType, []byte{a.u8(l4)}, 0))
	}
	if o.Comment != "" {
		text = "comment " + quoted(o.Comment) + "; " + text
	}
	kind, ok := objectNames.name(uint64(o.Type))
	if !ok {
		kind = fmt.Sprintf("<object %d>", o.Type)
	}
	l.line(1, "%s %s { %s }", kind, name(o.Name), text)
}

func (l *lister) flowTable(f *FlowTable) {
	head := fmt.Sprintf("flowtable %s { hook %s priority %s; devices = { %s };", name(f.Name), hookName(unix.NFPROTO_NETDEV, f.Hook),
		priorityText(unix.NFPROTO_NETDEV, f.Hook, f.Priority), quotedList(f.Devices))
	if f.Flags&1 != 0 { // NFT_FLOWTABLE_HW_OFFLOAD
		head += " flags offload;"
	}
	if f.Flags&2 != 0 { // NFT_FLOWTABLE_COUNTER
		head += " counter;"
	}
	l.line(1, "%s }", head)
}

func quotedList(names []string) string {
	all := make([]string, len(names))
	for i, s := range names {
		all[i] = quoted(s)
	}
	return strings.Join(all, ", ")
}

func (l *lister) chain(c *Chain) {
	l.line(1, "chain %s {", name(c.Name))
	if c.Comment != "" {
		l.line(2, "comment %s", quoted(c.Comment))
	}
	if c.Type != "" {
		l.line(2, "%s", c.Head())
	}
	for i := range c.Rules {
		l.line(2, "%s", l.w.Rule(c.Rules[i].Exprs, c.Rules[i].Comment))
	}
	l.line(1, "}")
}

// Head is how nft lists what hooks a chain up: "type nat hook prerouting priority dstnat;
// policy accept;". It is "" of a chain without a hook.
func (c *Chain) Head() string {
	if c.Type == "" {
		return ""
	}
	devices := ""
	switch len(c.Devices) {
	case 0:
	case 1:
		devices = " device " + quoted(c.Devices[0])
	default:
		devices = " devices = { " + quotedList(c.Devices) + " }"
	}
	policy := "accept"
	if c.Drop {
		policy = "drop"
	}
	return fmt.Sprintf("type %s hook %s%s priority %s; policy %s;", name(c.Type), hookName(c.Family, c.Hook), devices,
		priorityText(c.Family, c.Hook, c.Priority), policy)
}

// hookName names a hook (NF_INET_*, NF_NETDEV_*, NF_ARP_*).
func hookName(family byte, hook uint32) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	switch family {
	case unix.NFPROTO_NETDEV:
		names = []string{"ingress", "egress"}
	case unix.NFPROTO_ARP:
		names = []string{"input", "output", "forward"}
	}
	if int(hook) < len(names) {
		return names[hook]
	}
	return fmt.Sprintf("<hook %d>", hook)
}

// priorityText writes a priority by the name of one that is near, as nft does.
func priorityText(family byte, hook uint32, priority int32) string {
	const near = 10
	pre, out, post := uint32(unix.NF_INET_PRE_ROUTING), uint32(unix.NF_INET_LOCAL_OUT), uint32(unix.NF_INET_POST_ROUTING)
	type named struct {
		name string
		at   int32
		hook *uint32 // the one that it is for; nil for all
	}
	all := []named{
		{"raw", -300, nil}, {"mangle", -150, nil}, {"dstnat", -100, &pre}, {"filter", 0, nil}, {"security", 50, nil}, {"srcnat", 100, &post},
	}
	switch family {
	case unix.NFPROTO_BRIDGE:
		all = []named{{"dstnat", -300, &pre}, {"filter", -200, nil}, {"out", 100, &out}, {"srcnat", 300, &post}}
	case unix.NFPROTO_NETDEV, unix.NFPROTO_ARP:
		all = []named{{"filter", 0, nil}}
	}
	for _, n := range all {
		d := priority - n.at
		switch {
		case n.hook != nil && *n.hook != hook, d < -near, d > near:
		case d == 0:
			return n.name
		case d < 0:
			return fmt.Sprintf("%s - %d", n.name, -d)
		default:
			return fmt.Sprintf("%s + %d", n.name, d)
		}
	}
	return fmt.Sprint(priority)
}
