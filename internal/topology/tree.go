package topology

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// WriteTree writes a snapshot as a tree of text: each namespace with its links, and below a bridge
// its ports with what is at their other ends. Namespaces that are wired to each other are together.
func WriteTree(w io.Writer, s *Snapshot) error {
	var b strings.Builder
	for i, n := range slices.Concat(s.bands()...) {
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
				line(&b, "  ", "default", "via "+r.Via.String()+" on "+r.Dev)
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
	n := s.Namespace(e.Inode)
	if n == nil {
		return nil
	}
	for _, l := range n.Links {
		if l.Index == e.Index {
			return l
		}
	}
	return nil
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
		b.WriteString(plain(word))
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
	for _, l := range n.Listeners {
		if l.Addr.Addr().IsLoopback() || n.publishes(l) {
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

// publishes reports whether a socket has the number of a port that package nat publishes.
func (n *Namespace) publishes(l Listener) bool {
	return slices.ContainsFunc(n.Ports, func(p Port) bool {
		return p.Proto == l.Proto && p.Host.Port() <= l.Addr.Port() && l.Addr.Port() <= max(p.Host.Port(), p.Last) &&
			strings.HasPrefix(p.Table, "inet ") && p.Owner != ""
	})
}

// plain returns a text with what is not printable as an escape, so that a name cannot change what a
// terminal or a file shows.
func plain(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}
