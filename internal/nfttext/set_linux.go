package nfttext

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

func walk(b []byte) nl.Walker { return nl.Walk(b) }

func (r *rule) set(name string) *Set {
	if r.w.Set == nil {
		return nil
	}
	return r.w.Set(name)
}

// key writes what is looked up in a set.
func (r *rule) key(reg uint32, s *Set) string {
	if s == nil {
		return r.operand(r.read(reg))
	}
	return r.tuple(reg, s.Key)
}

// tuple writes the fields in registers from one on.
func (r *rule) tuple(reg uint32, types []*datatype) string {
	var all []string
	for i, v := range r.readFields(reg, types) {
		var t *datatype
		if i < len(types) {
			t = types[i]
		}
		all = append(all, r.source(v, t))
	}
	return strings.Join(all, " . ")
}

// reference writes a set: by its name, or its elements if it is the rule's own.
func (r *rule) reference(set string, s *Set) string {
	if s == nil || s.Flags&unix.NFT_SET_ANONYMOUS == 0 {
		return "@" + name(set)
	}
	all, more := r.w.elements(s, maxInline)
	if more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return "{ " + strings.Join(all, ", ") + " }"
}

func (r *rule) lookup(a *attrs) {
	const inverted = 1 // NFT_LOOKUP_F_INV
	set := a.text(unix.NFTA_LOOKUP_SET)
	s := r.set(set)
	key := r.key(a.u32(unix.NFTA_LOOKUP_SREG), s)
	ref := r.reference(set, s)
	if a[unix.NFTA_LOOKUP_DREG] == nil {
		not := ""
		switch {
		case a.u32(unix.NFTA_LOOKUP_FLAGS)&inverted != 0:
			not = "!= "
		case strings.Contains(key, " & ") && !strings.Contains(key, " . "):
			not = "== "
		}
		r.add("%s %s%s", key, not, ref)
		return
	}
	dreg := a.u32(unix.NFTA_LOOKUP_DREG)
	if dreg == unix.NFT_REG_VERDICT {
		r.add("%s vmap %s", key, ref)
		return
	}
	v := &value{text: key + " map " + ref, size: 16}
	if s != nil {
		v.types = s.Data
		v.size = 0
		for _, t := range s.Data {
			v.size += 4 * words(t.size)
		}
	}
	r.load(dreg, v)
}

// elements writes the elements of a set by ascending key, at most max, and returns how many more
// there are.
func (w *Writer) elements(s *Set, max int) (all []string, more int) {
	list := intervals(s)
	for i := range list {
		if i == max {
			return all, len(list) - max
		}
		all = append(all, w.element(s, &list[i]))
	}
	return all, 0
}

// intervals are the elements of a set, by ascending key. Where an interval ends by an element
// of its own, that is put into KeyEnd.
func intervals(s *Set) []Element {
	list := slices.Clone(s.Elements)
	slices.SortStableFunc(list, func(a, b Element) int {
		switch {
		case a.Any != b.Any:
			return cmp.Compare(rank(a.Any), rank(b.Any))
		case !bytes.Equal(a.Key, b.Key):
			return bytes.Compare(a.sortKey(s), b.sortKey(s))
		}
		return cmp.Compare(rank(!a.End), rank(!b.End)) // one ends where the next begins
	})
	if s.Flags&unix.NFT_SET_INTERVAL == 0 || len(s.Key) > 1 {
		return list
	}
	var all []Element
	for _, e := range list {
		if e.End {
			if n := len(all); n > 0 && all[n-1].KeyEnd == nil {
				all[n-1].KeyEnd = before(e.Key)
			}
			continue
		}
		all = append(all, e)
	}
	for i := range all {
		if e := &all[i]; e.KeyEnd == nil && !e.Any {
			e.KeyEnd = bytes.Repeat([]byte{0xff}, len(e.Key)) // up to the last key
		}
	}
	return all
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sortKey is a key whose bytes are in the order of its value.
func (e *Element) sortKey(s *Set) []byte {
	if len(s.Key) != 1 || s.Key[0].write != nil && s.Key[0].name == "ifname" {
		return e.Key
	}
	o := s.order()
	if o == 0 {
		o = s.Key[0].order
	}
	return big(e.Key, o)
}

// order is the byte order of the fields of keys; 0 is that of each field's type. Keys of
// intervals are in network order, or they could not be compared.
func (s *Set) order() order {
	switch {
	case s.Flags&unix.NFT_SET_INTERVAL != 0:
		return bigOrder
	case len(s.Key) == 1:
		return s.keyOrder
	}
	return 0
}

// before is the key before another one.
func before(key []byte) []byte {
	b := slices.Clone(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}

// element writes an element.
func (w *Writer) element(s *Set, e *Element) string {
	text := "*"
	if !e.Any {
		text = w.keyText(s, e)
	}
	if e.Exprs != nil {
		text += " " + w.stateful(e.Exprs)
	}
	if e.Timeout != 0 && e.Timeout != s.Timeout {
		text += " timeout " + duration(e.Timeout)
	}
	if e.Expires != 0 {
		text += " expires " + duration(e.Expires)
	}
	if e.Comment != "" {
		text += " comment " + quoted(e.Comment)
	}
	switch {
	case e.Verdict != nil:
		text += " : " + verdictText(e.Verdict)
	case e.Object != "":
		text += " : " + quoted(e.Object)
	case e.Data != nil:
		from, to := e.Data, []byte(nil)
		if s.dataRange {
			from, to = e.Data[:len(e.Data)/2], e.Data[len(e.Data)/2:]
		}
		text += " : " + w.fields(s.Data, from, to, s.dataOrder)
	}
	return text
}

func (w *Writer) keyText(s *Set, e *Element) string {
	o := s.order()
	if len(s.Key) == 1 && s.Key[0] == ifnameType && e.KeyEnd != nil {
		return w.nameRange(e.Key, e.KeyEnd)
	}
	return w.fields(s.Key, e.Key, e.KeyEnd, o)
}

// fields writes a value of several fields, or the range up to end.
func (w *Writer) fields(types []*datatype, b, end []byte, o order) string {
	if len(types) == 0 {
		types = []*datatype{hexType}
	}
	if len(types) == 1 {
		return w.span(types[0], b, end, o)
	}
	var all []string
	for i, t := range types {
		n := t.size
		if n == 0 || n > len(b) { // of no fixed size, and padded
			t = hexType
			if n = len(b); i < len(types)-1 {
				n = min(n, 4)
			}
		}
		var to []byte
		if len(end) >= n {
			to = end[:n]
			end = end[min(4*words(n), len(end)):]
		}
		if t == ifnameType && to != nil {
			all = append(all, w.nameRange(b[:n], to))
		} else {
			all = append(all, w.span(t, b[:n], to, o))
		}
		b = b[min(4*words(n), len(b)):]
	}
	return strings.Join(all, " . ")
}

// span writes a value, a prefix, or a range.
func (w *Writer) span(t *datatype, from, to []byte, o order) string {
	if to == nil || bytes.Equal(from, to) {
		if s := w.value(t, from, o); t.mask {
			return strings.ReplaceAll(s, ",", " | ")
		} else {
			return s
		}
	}
	use := o
	if use == 0 {
		use = t.order
	}
	if t.prefix {
		if n, ok := prefixOf(big(from, use), big(to, use)); ok {
			return fmt.Sprintf("%s/%d", w.value(t, from, o), n)
		}
	}
	return w.value(t, from, o) + "-" + w.value(t, to, o)
}

// nameRange writes names from one to another: those with the same beginning.
func (w *Writer) nameRange(from, to []byte) string {
	if bytes.Equal(from, to) {
		return w.value(ifnameType, from, 0)
	}
	n, ok := prefixOf(from, to)
	if ok && n%8 == 0 {
		return w.value(ifnameType, from[:n/8], 0)
	}
	return w.value(ifnameType, from, 0) + "-" + w.value(ifnameType, to, 0)
}
