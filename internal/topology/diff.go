package topology

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// WriteDiff writes what has changed from one snapshot to another, a line for each thing: "+" before
// what has come, "-" before what has gone, "~" before what is otherwise. Namespaces are the same if
// they have the same title, and no other has it in either snapshot, or the same inode number.
func WriteDiff(w io.Writer, before, after *Snapshot) error {
	names := unique(before, after)
	was, is := before.facts(names), after.facts(names)
	var b strings.Builder
	for _, key := range keys(was, is) {
		old, there := was[key]
		now, here := is[key]
		switch {
		case !there:
			line(&b, "+ ", key, now)
		case !here:
			line(&b, "- ", key, old)
		case old != now:
			line(&b, "~ ", key, old, "->", now)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// unique are the titles that at most one namespace of each snapshot has.
func unique(snapshots ...*Snapshot) map[string]bool {
	names := make(map[string]bool)
	for _, s := range snapshots {
		count := make(map[string]int)
		for _, n := range s.Namespaces {
			count[n.Title()]++
		}
		for title, n := range count {
			is, known := names[title]
			names[title] = n == 1 && (is || !known)
		}
	}
	return names
}

// things are what a snapshot shows, each with a key and what it is like.
type things struct {
	s     *Snapshot
	names map[string]bool // the titles that tell namespaces apart
	all   map[string]string
}

func (s *Snapshot) facts(names map[string]bool) map[string]string {
	t := things{s: s, names: names, all: make(map[string]string)}
	for _, note := range s.Notes {
		t.all["note "+note] = ""
	}
	for _, n := range s.Namespaces {
		t.namespace(n)
		for _, l := range n.Links {
			t.link(n, l)
		}
		for i := range n.Ports {
			p := &n.Ports[i]
			key := joinedBy(" ", t.name(n), "port", p.flag(), "of table", p.Table, p.If)
			if _, twice := t.all[key]; twice {
				key += " to " + p.Box.String()
			}
			t.all[key] = joinedBy(" ", p.text(), p.Fault)
		}
	}
	return t.all
}

// name is what tells a namespace apart.
func (t *things) name(n *Namespace) string {
	if title := n.Title(); t.names[title] {
		return title
	}
	return fmt.Sprintf("%s net:[%d]", n.Title(), n.Inode)
}

// namespace adds a namespace without its links and ports.
func (t *things) namespace(n *Namespace) {
	at := t.name(n)
	t.all[at] = fmt.Sprintf("net:[%d] %s", n.Inode, n.who())
	for _, r := range n.Routes {
		t.all[joinedBy(" ", at, "route", r.Dst.String(), r.via(), "on", r.Dev)] = ""
	}
	if n.More > 0 {
		t.all[at+" more routes"] = strconv.Itoa(n.More)
	}
	for _, l := range n.Listeners {
		t.all[at+" listens on "+l.Proto+" "+l.Addr.String()] = ""
	}
	for _, w := range n.Networks {
		t.all[at+" network "+w.Interface+" of table "+w.Table] = joinedBy(" ", fmt.Sprint(w.Subnets), strings.Join(w.Flags, " "))
	}
	for _, note := range n.Notes {
		t.all[at+" note "+note] = ""
	}
}

// link adds a link with its addresses.
func (t *things) link(n *Namespace, l *Link) {
	at := t.name(n)
	like := []string{l.state(n), "mtu " + strconv.Itoa(l.MTU), l.MAC}
	if l.Master != "" {
		like = append(like, "master "+l.Master)
	}
	if l.Peer != nil && l.Peer.Inode != n.Inode {
		if far := t.s.Namespace(l.Peer.Inode); far != nil {
			like = append(like, "--- "+t.name(far)+" "+l.Peer.Link)
		}
	}
	t.all[at+" link "+l.Name] = joinedBy(" ", like...)
	for _, a := range l.Addrs {
		t.all[at+" addr "+a.String()+" on "+l.Name] = ""
	}
}

// keys are the keys of both, in order.
func keys(a, b map[string]string) (all []string) {
	for key := range a {
		all = append(all, key)
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			all = append(all, key)
		}
	}
	slices.SortFunc(all, natural)
	return all
}
