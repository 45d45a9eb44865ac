package topology

import (
	"fmt"
	"path"
	"strings"
)

// Title is what a namespace is called in a picture: the name of a bind mount, the name of its first
// process, or its number.
func (n *Namespace) Title() string {
	switch {
	case n.Own:
		return "host"
	case len(n.Names) > 0:
		return path.Base(n.Names[0])
	case len(n.Processes) > 0:
		return n.Processes[0].Comm
	}
	return fmt.Sprintf("net:[%d]", n.Inode)
}

// who are the processes in few words.
func (n *Namespace) who() string {
	const most = 3
	if n.Own || len(n.Processes) == 0 {
		return ""
	}
	var words []string
	for i, p := range n.Processes {
		if i == most {
			words = append(words, fmt.Sprintf("%d more", len(n.Processes)-most))
			break
		}
		word := fmt.Sprintf("%s %d", p.Comm, p.Pid)
		if i == 0 && p.Comm == n.Title() {
			word = fmt.Sprintf("pid %d", p.Pid)
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// state is a link's kind in its namespace, and what is not as usual about it.
func (l *Link) state(n *Namespace) string {
	var words []string
	if kind := strings.TrimSpace(l.Kind + " " + l.Detail); kind != "" {
		words = append(words, kind)
	}
	if l.Peer != nil && l.Peer.Inode == n.Inode {
		words = append(words, "on "+l.Peer.Link)
	}
	if len(l.VLANs) > 0 {
		words = append(words, "vlan "+strings.Join(l.VLANs, " "))
	}
	switch {
	case !l.Up:
		words = append(words, "down")
	case !l.Running:
		words = append(words, "no carrier")
	}
	return strings.Join(words, ", ")
}

// addrs are the addresses of a link that were given to it: those that each link has are left out.
func (l *Link) addrs() string {
	var words []string
	for _, a := range l.Addrs {
		if !a.Addr().IsLinkLocalUnicast() && !a.Addr().IsLoopback() {
			words = append(words, a.String())
		}
	}
	return strings.Join(words, " ")
}

// network is what the firewall does with the boxes of a link, in few words.
func (n *Namespace) network(link string) string {
	var words []string
	for _, w := range n.Networks {
		if w.Interface == link {
			words = append(words, w.Flags...)
		}
	}
	return strings.Join(words, ", ")
}

// joined joins the words that are not empty, as columns.
func joined(words ...string) string { return joinedBy("  ", words...) }

// joinedBy joins the words that are not empty.
func joinedBy(separator string, words ...string) string {
	var kept []string
	for _, w := range words {
		if w != "" {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, separator)
}
