package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/topology"
)

// Details are all that is known about a namespace, or about a port.
type details struct {
	Gone bool `json:"gone,omitempty"` // there is nothing of this key any more

	Title     string              `json:"title"`
	Namespace *topology.Namespace `json:"namespace,omitempty"`
	Port      *topology.Port      `json:"port,omitempty"`

	// Host is the namespace of a port.
	Host uint64 `json:"host,omitempty"`

	// Here are the ports, of whichever namespace, that lead to the namespace or are its own.
	Here []portRef `json:"here,omitempty"`

	// Group is where the part is folded, for a page that asks because it does not show it.
	Group string `json:"group,omitempty"`

	// Titles are of the namespaces that are mentioned, by their inode numbers.
	Titles map[string]string `json:"titles,omitempty"`

	Commands []command `json:"commands,omitempty"`
}

// A portRef is a port with its key and its namespace.
type portRef struct {
	Key  string         `json:"key"`
	Host uint64         `json:"host"`
	Port *topology.Port `json:"port"`
}

// explainTimeout is how long the details of a port wait for an explanation.
const explainTimeout = 2 * time.Second

func (s *server) details(w http.ResponseWriter, r *http.Request) {
	v := s.view(w, r)
	if v == nil {
		return
	}
	if key := r.URL.Query().Get("port"); key != "" {
		s.port(w, r, v, key)
		return
	}
	n, ok := namespace(w, r, v.snapshot)
	switch {
	case !ok:
		return
	case n == nil:
		answer(w, details{Gone: true})
		return
	}
	d := details{Title: n.Title(), Namespace: n, Titles: make(map[string]string), Commands: namespaceCommands(n)}
	for _, l := range n.Links {
		d.mention(v.snapshot, l.Peer)
	}
	for _, o := range v.snapshot.Namespaces {
		for i := range o.Ports {
			p := &o.Ports[i]
			if o == n || p.To != nil && p.To.Inode == n.Inode {
				d.Here = append(d.Here, portRef{o.PortKey(p), o.Inode, p})
				d.mention(v.snapshot, p.To)
				d.mention(v.snapshot, &topology.End{Inode: o.Inode})
			}
		}
	}
	d.Group = group(r, v, fmt.Sprintf("ns-%d", n.Inode))
	answer(w, d)
}

// group returns where a part is folded, if the request asks for it.
func group(r *http.Request, v *view, key string) string {
	if !r.URL.Query().Has("folded") {
		return ""
	}
	return v.folded()[key]
}

// port answers with the details of a port.
func (s *server) port(w http.ResponseWriter, r *http.Request, v *view, key string) {
	snapshot := v.snapshot
	n, p := findPort(snapshot, key)
	if p == nil {
		answer(w, details{Gone: true})
		return
	}
	shown := *p
	if s.src.explain != nil {
		if done := s.worker(r); done != nil {
			ctx, cancel := context.WithTimeout(r.Context(), explainTimeout)
			if words, err := s.src.explain(ctx, snapshot, n.Inode, shown); err == nil && words != "" {
				shown.Fault = words
			}
			cancel()
			done()
		}
	}
	d := details{Title: portName(p), Port: &shown, Host: n.Inode, Titles: make(map[string]string), Commands: portCommands(snapshot, n, p)}
	d.mention(snapshot, p.To)
	d.mention(snapshot, &topology.End{Inode: n.Inode})
	d.Group = group(r, v, "port-"+key)
	answer(w, d)
}

// mention adds the title of a namespace.
func (d *details) mention(s *topology.Snapshot, end *topology.End) {
	if end == nil {
		return
	}
	key := strconv.FormatUint(end.Inode, 10)
	if _, ok := d.Titles[key]; ok {
		return
	}
	if n := s.Namespace(end.Inode); n != nil {
		d.Titles[key] = n.Title()
	}
}

// findPort returns the port of a key, with its namespace.
func findPort(s *topology.Snapshot, key string) (*topology.Namespace, *topology.Port) {
	for _, n := range s.Namespaces {
		for i := range n.Ports {
			if n.PortKey(&n.Ports[i]) == key {
				return n, &n.Ports[i]
			}
		}
	}
	return nil, nil
}

// maxCounted is how many links are counted at a time.
const maxCounted = 64

// Counted is how much has gone over links up to a moment.
type counted struct {
	At      int64     `json:"at"` // microseconds since 1970
	Links   []counter `json:"links"`
	Trouble string    `json:"trouble,omitempty"` // why they cannot be counted
}

// rates answers with the counters of links of a namespace. The page asks twice and knows the rate.
func (s *server) rates(w http.ResponseWriter, r *http.Request) {
	v := s.view(w, r)
	if v == nil {
		return
	}
	n, ok := namespace(w, r, v.snapshot)
	if !ok {
		return
	}
	if n == nil {
		answer(w, counted{Trouble: "it is gone"})
		return
	}
	var indices []int
	for text := range strings.SplitSeq(r.URL.Query().Get("links"), ",") {
		index, err := strconv.Atoi(text)
		if err != nil || len(indices) == maxCounted {
			http.Error(w, "map: links are up to "+strconv.Itoa(maxCounted)+" indices, with commas between", http.StatusBadRequest)
			return
		}
		if slices.ContainsFunc(n.Links, func(l *topology.Link) bool { return l.Index == index }) {
			indices = append(indices, index)
		}
	}
	done := s.worker(r)
	if done == nil {
		return
	}
	c := counted{At: time.Now().UnixMicro()}
	var err error
	if c.Links, err = s.src.count(r.Context(), n, indices); err != nil {
		c.Trouble = err.Error()
	}
	done()
	answer(w, c)
}
