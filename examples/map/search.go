package main

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/topology"
)

// Bounds of a search.
const (
	maxQuery   = 200 // bytes
	maxMatches = 500
)

// A match is a part of the picture that a search has found.
type match struct {
	Key   string `json:"key"` // of the part
	Title string `json:"title"`
	Why   string `json:"why"`             // the text that matches
	Rank  int    `json:"rank"`            // 0 is a text that is the query, 1 one that begins with it
	Group string `json:"group,omitempty"` // where the part is folded
}

// An entry is what a search looks through: a namespace or a port.
type entry struct {
	key, title string
	texts      []text
}

// A text is something that an entry is found by.
type text struct {
	shown, lower string
	kind         kind
}

// A kind says which words find a text.
type kind int

const (
	byPart   kind = iota // a part of it
	byWhole              // all of it, because its digits mean nothing alone: a process id
	byColon              // a part of it with a colon: a hardware or an IPv6 address
	byOther              // a part of it; it is of what the entry leads to
	bySocket             // all of it; a published port of this number comes first
)

// texts are several texts of a kind.
func texts(k kind, words ...string) (all []text) {
	for _, w := range words {
		if w != "" {
			all = append(all, text{w, strings.ToLower(w), k})
		}
	}
	return all
}

// rank says how well a word finds the text; 0 is best, and -1 is not at all.
func (t text) rank(word string) int {
	switch {
	case t.lower == word && (t.kind == byOther || t.kind == bySocket):
		return 1
	case t.lower == word:
		return 0
	case t.kind == byWhole, t.kind == bySocket, t.kind == byColon && !strings.Contains(word, ":"):
		return -1
	case strings.HasPrefix(t.lower, word):
		return 1
	case strings.Contains(t.lower, word):
		return 2
	}
	return -1
}

func (s *server) search(w http.ResponseWriter, r *http.Request) {
	v := s.view(w, r)
	if v == nil {
		return
	}
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	if len(q) > maxQuery {
		http.Error(w, fmt.Sprintf("map: a query has no more than %d bytes", maxQuery), http.StatusBadRequest)
		return
	}
	done := s.worker(r)
	if done == nil {
		return
	}
	defer done()
	all := find(v.index(), q)
	found := struct {
		Count   int     `json:"count"`
		Matches []match `json:"matches"`
	}{len(all), all[:min(len(all), maxMatches)]}
	if len(all) > 0 {
		folded := v.folded()
		for i := range found.Matches {
			found.Matches[i].Group = folded[found.Matches[i].Key]
		}
	}
	answer(w, found)
}

// find returns what has all words of a query, the best first.
func find(entries []entry, q string) []match {
	all := []match{}
	terms := strings.Fields(strings.ToLower(q))
	if len(terms) == 0 {
		return all
	}
	for _, e := range entries {
		if m, ok := e.match(terms); ok {
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, func(a, b match) int { return cmp.Compare(a.Rank, b.Rank) })
	return all
}

// match reports whether the entry has all words, and how well.
func (e *entry) match(terms []string) (match, bool) {
	m := match{Key: e.key, Title: e.title}
	for i, term := range terms {
		best := -1
		for _, t := range e.texts {
			rank := t.rank(term)
			if rank < 0 || best >= 0 && rank >= best {
				continue
			}
			best = rank
			if i == 0 {
				m.Why = t.shown
			}
		}
		if best < 0 {
			return m, false
		}
		m.Rank = max(m.Rank, best)
	}
	return m, true
}

// entries are the namespaces and ports of a snapshot.
func entries(s *topology.Snapshot) (all []entry) {
	for _, n := range s.Namespaces {
		all = append(all, entry{fmt.Sprintf("ns-%d", n.Inode), n.Title(), namespaceTexts(n)})
		for i := range n.Ports {
			p := &n.Ports[i]
			e := entry{key: "port-" + n.PortKey(p), title: portName(p)}
			e.texts = texts(byPart, p.Proto, p.Host.String(), p.Owner, p.Table, p.Fault)
			e.texts = append(e.texts, texts(byWhole, p.Host.Addr().String(), number(p.Host.Port()))...)
			e.texts = append(e.texts, texts(byOther, p.Box.String(), p.Box.Addr().String(), number(p.Box.Port()))...)
			all = append(all, e)
		}
	}
	return all
}

func number[T uint16 | uint64 | int](n T) string { return fmt.Sprint(n) }

// namespaceTexts are what a namespace is found by.
func namespaceTexts(n *topology.Namespace) []text {
	all := texts(byPart, append([]string{n.Title()}, n.Names...)...)
	add := func(k kind, words ...string) { all = append(all, texts(k, words...)...) }
	add(byWhole, number(n.Inode))
	for _, p := range n.Processes {
		add(byPart, p.Comm)
		add(byWhole, number(p.Pid))
	}
	for _, c := range n.Containers {
		add(byPart, c.Runtime)
		add(byWhole, c.ID, c.ID[:min(12, len(c.ID))])
	}
	for _, l := range n.Links {
		add(byPart, l.Name)
		add(byColon, l.MAC)
		if l.Peer != nil && !n.Own { // the own namespace would be found by each box's end
			add(byPart, l.Peer.Link)
		}
		for _, a := range l.Addrs {
			k := byPart
			if a.Addr().Is6() {
				k = byColon
			}
			add(k, a.Addr().String(), a.String())
		}
	}
	for _, l := range n.Listeners {
		add(byPart, l.Proto)
		add(bySocket, number(l.Addr.Port()), l.Addr.String())
	}
	for _, w := range n.Networks {
		add(byPart, w.Interface)
		for _, p := range w.Subnets {
			add(byWhole, p.String())
		}
	}
	return all
}
