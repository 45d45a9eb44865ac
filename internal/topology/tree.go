package topology

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/plain"
)

// WriteTree writes a snapshot as a tree of text: each namespace with its links, and below a bridge
// its ports with what is at their other ends. Namespaces that are wired to each other are together.
func WriteTree(w io.Writer, s *Snapshot) error {
	var b strings.Builder
	for i, n := range slices.Concat(s.bands(s.byInode(), s.near())...) {
		if i > 0 {
			b.WriteByte('\n')
		}
		line(&b, "", n.Title(), n.who())
		for _, l := range n.Links {
			if l.Master == "" {
				s.treeLink(&b, "  ", n, l)
			}
		}
		for _, r := range n.Routes {
			if r.IsDefault() {
				line(&b, "  ", "default", joinedBy(" ", r.via(), "on", r.Dev))
			}
		}
		if n.More > 0 {
			line(&b, "  ", fmt.Sprintf("and %d more routes", n.More))
		}
		if text := n.listening(); text != "" {
			line(&b, "  ", "listens on", text)
		}
		for i := range n.Ports {
			p := &n.Ports[i]
			to := ""
			if p.To != nil {
				if at := s.Namespace(p.To.Inode); at != nil {
					to = "--- " + at.Title()
				}
			}
			line(&b, "  ", "port", p.text(), to)
			if p.Fault != "" {
				line(&b, "    ", p.Fault)
			}
		}
		notes(&b, "  ", n.Notes)
	}
	notes(&b, "", s.Notes)
	_, err := io.WriteString(w, b.String())
	return err
}

// treeLink writes a link and its ports.
func (s *Snapshot) treeLink(b *strings.Builder, indent string, n *Namespace, l *Link) {
	name := l.Name
	if state := l.state(n); state != "" {
		name += " (" + state + ")"
	}
	far := ""
	if at := s.end(l.Peer); at != nil && l.Peer.Inode != n.Inode {
		far = "--- " + s.Namespace(l.Peer.Inode).Title() + " " + at.Name
		if n.Own {
			far += "  " + at.addrs()
		}
	}
	line(b, indent, name, l.addrs(), n.network(l.Name), far)
	for _, p := range n.Links {
		if p.Master == l.Name && p != l {
			s.treeLink(b, indent+"  ", n, p)
		}
	}
}

// end returns the link at an end, or nil.
func (s *Snapshot) end(e *End) *Link {
	if e == nil {
		return nil
	}
	return s.Namespace(e.Inode).linkAt(e.Index)
}

// linkAt returns the link of an index, or nil. The namespace may be nil.
func (n *Namespace) linkAt(index int) *Link {
	if n == nil {
		return nil
	}
	i := slices.IndexFunc(n.Links, func(l *Link) bool { return l.Index == index })
	if i < 0 {
		return nil
	}
	return n.Links[i]
}

// line writes the words that are not empty.
func line(b *strings.Builder, indent string, words ...string) {
	b.WriteString(indent)
	first := true
	for _, word := range words {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		if !first {
			b.WriteString("  ")
		}
		first = false
		b.WriteString(plain.Text(word))
	}
	b.WriteByte('\n')
}

func notes(b *strings.Builder, indent string, all []string) {
	for _, n := range all {
		line(b, indent, "note: "+n)
	}
}

// listening are the sockets that wait, in few words. Those of 127.0.0.0/8 and ::1 are left out, because
// they are reached from the namespace itself alone, and those by which package nat keeps a published
// port from other programs.
func (n *Namespace) listening() string {
	var words []string
	published := n.published()
	for _, l := range n.Listeners {
		if l.Addr.Addr().IsLoopback() || published[l.Proto][l.Addr.Port()] {
			continue
		}
		host := l.Addr.Addr().String()
		switch {
		case l.Addr.Addr().IsUnspecified():
			host = ""
		case l.Addr.Addr().Is6():
			host = "[" + host + "]"
		}
		word := l.Proto + " " + host + ":" + strconv.Itoa(int(l.Addr.Port()))
		if len(words) == 0 || words[len(words)-1] != word { // of both families
			words = append(words, word)
		}
	}
	return strings.Join(words, ", ")
}

// published are the numbers of the ports that package nat publishes, by protocol.
func (n *Namespace) published() map[string]map[uint16]bool {
	all := make(map[string]map[uint16]bool)
	for i := range n.Ports {
		p := &n.Ports[i]
		if p.Owner == "" { // another firewall's
			continue
		}
		if all[p.Proto] == nil {
			all[p.Proto] = make(map[uint16]bool)
		}
		for port := int(p.Host.Port()); port <= int(max(p.Host.Port(), p.Last)); port++ {
			all[p.Proto][uint16(port)] = true
		}
	}
	return all
}
