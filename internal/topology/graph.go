package topology

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/plain"
)

// A language is how one program wants a graph written.
type language struct {
	begin, end string
	open       string // of a namespace, with its inode number and label
	close      string
	node       string // with its name and label
	edge       string // with the names of two nodes
	quote      *strings.Replacer
}

var dot = language{
	begin: "graph machine {\n  rankdir=LR\n  node [shape=box]\n", end: "}\n",
	open: "  subgraph cluster_%d {\n    label=\"%s\"\n", close: "  }\n",
	node: "    %s [label=\"%s\"]\n", edge: "  %s -- %s\n",
	quote: strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`),
}

var mermaid = language{
	begin: "flowchart LR\n",
	open:  "  subgraph n%d[\"%s\"]\n", close: "  end\n",
	node: "    %s[\"%s\"]\n", edge: "  %s --- %s\n",
	// Mermaid's own entities; the rest of HTML's would be taken for markup.
	quote: strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "`", "#96;", "\n", "<br/>"),
}

// WriteDOT writes a snapshot as a graph for Graphviz (dot(1)): a cluster for each namespace, a node
// for each link, and an edge for each pair and each port of a bridge.
func WriteDOT(w io.Writer, s *Snapshot) error { return dot.write(w, s) }

// WriteMermaid writes a snapshot as a flowchart for Mermaid, as Markdown pages show it.
func WriteMermaid(w io.Writer, s *Snapshot) error { return mermaid.write(w, s) }

func (g *language) write(w io.Writer, s *Snapshot) error {
	var b strings.Builder
	b.WriteString(g.begin)
	for _, n := range s.Namespaces {
		fmt.Fprintf(&b, g.open, n.Inode, g.quote.Replace(label(append([]string{n.Title(), n.who(), n.listening()}, n.Notes...)...)))
		for _, l := range n.shown() {
			fmt.Fprintf(&b, g.node, node(n.Inode, l.Index), g.quote.Replace(label(l.Name, l.state(n), l.addrs())))
		}
		b.WriteString(g.close)
	}
	for _, e := range s.edges() {
		fmt.Fprintf(&b, g.edge, e[0], e[1])
	}
	if len(s.Notes) > 0 {
		fmt.Fprintf(&b, g.node, "notes", g.quote.Replace(label(slices.Clone(s.Notes)...)))
	}
	b.WriteString(g.end)
	_, err := io.WriteString(w, b.String())
	return err
}

// shown are the links of a graph: all but lo.
func (n *Namespace) shown() (links []*Link) {
	for _, l := range n.Links {
		if l.Name != "lo" {
			links = append(links, l)
		}
	}
	return links
}

// edges are the pairs of nodes with a line between them, each once.
func (s *Snapshot) edges() (all [][2]string) {
	for _, n := range s.Namespaces {
		byName := make(map[string]*Link, len(n.Links))
		for _, l := range n.Links {
			byName[l.Name] = l
		}
		for _, l := range n.shown() {
			if m := byName[l.Master]; m != nil {
				all = append(all, [2]string{node(n.Inode, m.Index), node(n.Inode, l.Index)})
			}
			peer := s.end(l.Peer)
			if peer == nil || peer.Name == "lo" {
				continue
			}
			// The other end has the same edge, unless it is one that the link lies on.
			mutual := peer.Peer != nil && peer.Peer.Inode == n.Inode && peer.Peer.Index == l.Index
			if mutual && (l.Peer.Inode < n.Inode || l.Peer.Inode == n.Inode && l.Peer.Index < l.Index) {
				continue
			}
			all = append(all, [2]string{node(n.Inode, l.Index), node(l.Peer.Inode, l.Peer.Index)})
		}
	}
	return all
}

// node is the name of a link's node.
func node(inode uint64, index int) string { return fmt.Sprintf("l%d_%d", inode, index) }

// label joins the lines that are not empty.
func label(lines ...string) string {
	for i, l := range lines {
		lines[i] = plain.Text(l)
	}
	return joinedBy("\n", lines...)
}
