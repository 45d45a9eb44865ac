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
		words = append(words, fmt.Sprintf("%s %d", p.Comm, p.Pid))
	}
	return strings.Join(words, ", ")
}

// state is a link's kind and what is not as usual about it.
func (l *Link) state() string {
	var words []string
	if l.Kind != "" {
		words = append(words, l.Kind)
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
