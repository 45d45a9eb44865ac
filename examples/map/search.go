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
	texts      []string
	lower      []string
	own        int // how many of the texts are its own, and not those of what it leads to
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
		for j, text := range e.lower {
			rank := 2
			switch {
			case text == term:
				rank = 0
			case strings.HasPrefix(text, term):
				rank = 1
			case !strings.Contains(text, term):
				continue
			}
			if j >= e.own {
				rank = max(rank, 1)
			}
			if best < 0 || rank < best {
				best = rank
				if i == 0 {
					m.Why = e.texts[j]
				}
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
	add := func(key, title string, texts []string, others ...string) {
		e := entry{key: key, title: title, own: len(texts), texts: append(texts, others...)}
		for _, t := range texts {
			e.lower = append(e.lower, strings.ToLower(t))
		}
		all = append(all, e)
	}
	for _, n := range s.Namespaces {
		add(fmt.Sprintf("ns-%d", n.Inode), n.Title(), namespaceTexts(n))
		for i := range n.Ports {
			p := &n.Ports[i]
			add("port-"+n.PortKey(p), portName(p), []string{
				fmt.Sprint(p.Host.Port()), p.Proto, p.Host.String(), p.Host.Addr().String(), p.Owner, p.Table, p.Fault,
			}, p.Box.String(), p.Box.Addr().String(), fmt.Sprint(p.Box.Port()))
		}
	}
	return all
}

// namespaceTexts are what a namespace is found by.
func namespaceTexts(n *topology.Namespace) []string {
	texts := []string{n.Title(), fmt.Sprint(n.Inode)}
	texts = append(texts, n.Names...)
	for _, p := range n.Processes {
		texts = append(texts, p.Comm, fmt.Sprint(p.Pid))
	}
	for _, c := range n.Containers {
		texts = append(texts, c.ID, c.Runtime)
	}
	for _, l := range n.Links {
		texts = append(texts, l.Name, l.MAC)
		if l.Peer != nil && !n.Own { // the own namespace would be found by each box's end
			texts = append(texts, l.Peer.Link)
		}
		for _, a := range l.Addrs {
			texts = append(texts, a.Addr().String(), a.String())
		}
	}
	for _, l := range n.Listeners {
		texts = append(texts, fmt.Sprint(l.Addr.Port()), l.Proto, l.Addr.String())
	}
	for _, w := range n.Networks {
		texts = append(texts, w.Interface)
		for _, p := range w.Subnets {
			texts = append(texts, p.String())
		}
	}
	return texts
}
