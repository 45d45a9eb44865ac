package topology

import (
	"fmt"
	"hash/fnv"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// PortKey is a name for a port that no other port of the snapshot has, and that the port keeps from
// snapshot to snapshot.
func (n *Namespace) PortKey(p *Port) string {
	key := fmt.Sprintf("%d-%s-%s-%s-%s", n.Inode, strings.ReplaceAll(p.Table, " ", "."), p.Proto, p.Host, p.Box)
	if p.If != "" {
		h := fnv.New32a()
		h.Write([]byte(p.If))
		key += fmt.Sprintf("-%x", h.Sum32())
	}
	return key
}

// flag is what visitors of the port name: ":8080", "203.0.113.1:53/udp".
func (p *Port) flag() string {
	text := hostPort(p.Host)
	if p.Last > p.Host.Port() {
		text += "-" + strconv.Itoa(int(p.Last))
	}
	if p.Proto != "tcp" {
		text += "/" + p.Proto
	}
	return text
}

// text is where the port leads to, and for whom.
func (p *Port) text() string {
	words := []string{p.flag(), "→", p.Box.String()}
	if p.Owner != "" {
		words = append(words, "("+p.Owner+")")
	}
	if p.If != "" {
		words = append(words, "if "+p.If)
	}
	return strings.Join(words, " ")
}

// hostPort leaves out an address that stands for all.
func hostPort(a netip.AddrPort) string {
	switch {
	case a.Addr() == netip.IPv4Unspecified():
		return ":" + strconv.Itoa(int(a.Port()))
	case !a.Addr().IsValid():
		return "?"
	}
	return a.String()
}

// WriteWay writes the way from a visitor of a port to the program that answers, a line for each step.
func (s *Snapshot) WriteWay(w io.Writer, n *Namespace, p *Port) error {
	var b strings.Builder
	line(&b, "", "visitors of", p.flag(), "of", n.Title())
	line(&b, "  -> ", "table "+p.Table, "translates it to", p.Box.String(), who(p.Owner))
	far := s.Namespace(inodeOf(p.To))
	if far == nil {
		line(&b, "  -> ", "no namespace that can be read has the address")
		_, err := io.WriteString(w, b.String())
		return err
	}
	if to := s.end(p.To); to != nil && to.Peer != nil && to.Peer.Inode == n.Inode {
		near := to.Peer
		out := near.Link
		if l := s.end(near); l != nil && l.Master != "" {
			out += ", a port of " + l.Master
		}
		line(&b, "  -> ", "link "+out, "of", n.Title())
	}
	line(&b, "  -> ", "link "+p.To.Link, "of", far.Title(), far.who())
	if far.listens(p.Proto, p.Box) {
		line(&b, "  -> ", "a program that listens on", p.Proto, p.Box.String())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func who(owner string) string {
	if owner == "" {
		return ""
	}
	return "for " + owner
}

func inodeOf(e *End) uint64 {
	if e == nil {
		return 0
	}
	return e.Inode
}
