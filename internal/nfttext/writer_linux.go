package nfttext

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxRule bounds the text of a rule in bytes.
	maxRule = 8 << 10

	// maxInline bounds how many elements a rule's own set is written with.
	maxInline = 64
)

// Writer writes rules of tables of a family. Its zero fields are usable.
type Writer struct {
	Family byte

	// Set finds a set of the table; nil for one that is not known.
	Set func(name string) *Set

	// Link names the link with an index; "" for one that is not known.
	Link func(index uint32) string
}

// Rule writes the expressions of a rule, and its comment.
func (w *Writer) Rule(exprs []Expr, comment string) string {
	r := newRule(w)
	r.all(exprs)
	if comment != "" {
		r.add("comment %s", quoted(comment))
	}
	return r.String()
}

// layer is a header of a packet that others depend on.
type layer int

const (
	linkLayer layer = iota
	networkLayer
	transportLayer
	layers
)

// rule is a rule that is being written.
type rule struct {
	w    *Writer
	regs [20]*value // by words of 4 bytes
	out  []string   // "" for what a later statement says, too
	size int

	network byte // unix.NFPROTO_IPV4, _IPV6, _ARP; 0 where that is not known
	proto   byte // of the transport layer; 0 where that is not known

	// implied are the statements about the protocol of a layer: nft leaves such a one out
	// if there is a field of that protocol behind.
	implied [layers]int
}

func newRule(w *Writer) *rule {
	r := &rule{w: w, implied: [layers]int{-1, -1, -1}}
	switch w.Family {
	case unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_ARP:
		r.network = w.Family
	}
	return r
}

func (r *rule) String() string {
	var b strings.Builder
	for _, s := range r.out {
		if s == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s)
	}
	return b.String()
}

// add appends a statement. What goes beyond the bound is left out, and said so once.
func (r *rule) add(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	if r.size > maxRule {
		return
	}
	if r.size += len(s) + 1; r.size > maxRule {
		s = "<more>"
	}
	r.out = append(r.out, s)
}

// unknown appends an expression that cannot be written.
func (r *rule) unknown(what string) { r.add("<%s>", strings.Trim(quoted(what), `"`)) }

// word is the number of a register's first word of 4 bytes, or -1. Registers 1 to 4 have 16
// bytes each, and 8 to 23 are their words.
func word(reg uint32) int {
	switch {
	case 1 <= reg && reg <= 4:
		return int(reg-1) * 4
	case 8 <= reg && reg <= 23:
		return int(reg - 8)
	}
	return -1
}

func words(bytes int) int { return max(1, (bytes+3)/4) }

func (r *rule) load(reg uint32, v *value) {
	if at := word(reg); at >= 0 {
		r.regs[at] = v
	}
}

// read returns what is in a register; what was not written there has no text.
func (r *rule) read(reg uint32) *value {
	if at := word(reg); at >= 0 && r.regs[at] != nil {
		return r.regs[at]
	}
	return &value{text: "<unknown>"}
}

// readFields returns what is in the registers for fields of these types, one value each.
func (r *rule) readFields(reg uint32, types []*datatype) []*value {
	if len(types) < 2 {
		return []*value{r.read(reg)}
	}
	at := word(reg)
	var all []*value
	for len(all) < len(types) && at >= 0 && at < len(r.regs) && r.regs[at] != nil {
		v := r.regs[at]
		all = append(all, v)
		at += words(v.size)
	}
	if len(all) == 0 {
		return []*value{r.read(reg)}
	}
	return all
}

// all writes the expressions in order.
func (r *rule) all(exprs []Expr) {
	for i := 0; i < len(exprs); i++ {
		e := &exprs[i]
		a := parse(e.Data)
		if e.Name == "cmp" && i+1 < len(exprs) && exprs[i+1].Name == "cmp" {
			if b := parse(exprs[i+1].Data); r.between(&a, &b) {
				i++
				continue
			}
		}
		write := expressions[e.Name]
		if write == nil {
			r.unknown(e.Name)
			continue
		}
		write(r, &a)
	}
}

// expressions write an expression each, by its name.
var expressions map[string]func(r *rule, a *attrs)

func init() {
	expressions = map[string]func(r *rule, a *attrs){
		"meta": (*rule).meta, "payload": (*rule).payload, "ct": (*rule).ct, "fib": (*rule).fib, "rt": (*rule).rt,
		"socket": (*rule).socket, "exthdr": (*rule).exthdr, "numgen": (*rule).numgen, "hash": (*rule).hash,
		"osf": (*rule).osf, "xfrm": (*rule).xfrm,
		"bitwise": (*rule).bitwise, "byteorder": (*rule).byteorder, "cmp": (*rule).cmp, "range": (*rule).inRange,
		"lookup": (*rule).lookup, "immediate": (*rule).immediate, "dynset": (*rule).dynset, "objref": (*rule).objref,
		"counter": (*rule).counter, "limit": (*rule).limit, "quota": (*rule).quota, "connlimit": (*rule).connlimit,
		"last": (*rule).last, "log": (*rule).log, "reject": (*rule).reject, "nat": (*rule).nat, "masq": (*rule).masquerade,
		"redir": (*rule).redirect, "tproxy": (*rule).tproxy, "dup": (*rule).dup, "fwd": (*rule).fwd, "queue": (*rule).queue,
		"synproxy": (*rule).synproxy, "flow_offload": (*rule).flowOffload,
		"notrack": func(r *rule, _ *attrs) { r.add("notrack") },
		"match":   (*rule).xtMatch, "target": (*rule).xtTarget,
	}
}
