package topology

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// PortKey is a name for a port that no other port of the snapshot has, and that the port keeps from
// snapshot to snapshot.
func (n *Namespace) PortKey(p *Port) string {
	return fmt.Sprintf("%d-%s-%s-%s", n.Inode, strings.ReplaceAll(p.Table, " ", "."), p.Proto, p.Host)
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
