package main

import (
	"fmt"
	"path"
	"strings"

	"github.com/boxwire/boxwire/internal/plain"
	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/netns"
)

// A command shows, in a terminal, what the page shows.
type command struct {
	What string `json:"what"`
	Line string `json:"line"`
}

// namespaceCommands are the commands for a namespace.
func namespaceCommands(n *topology.Namespace) []command {
	in, ok := enter(n)
	if !ok {
		return nil
	}
	all := []command{
		{"links", in.ip("-d link")},
		{"addresses", in.ip("addr")},
		{"routes", in.ip("route")},
		{"IPv6 routes", in.ip("-6 route")},
		{"listening sockets", in.run("ss -tulnp")},
	}
	for _, l := range n.Links {
		if l.Kind == "bridge" {
			all = append(all, command{"bridge ports", in.bridge("link")})
			break
		}
	}
	seen := make(map[string]bool)
	table := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			all = append(all, command{"firewall", in.run("nft list table " + words(name))})
		}
	}
	for _, w := range n.Networks {
		table(w.Table)
	}
	for _, p := range n.Ports {
		table(p.Table)
	}
	for i, p := range n.Processes {
		if i == 3 {
			break
		}
		all = append(all, command{"process " + p.Comm, fmt.Sprintf("ps -o pid,user,lstart,args -p %d", p.Pid)})
	}
	return all
}

// portCommands are the commands for a port of a namespace.
func portCommands(s *topology.Snapshot, n *topology.Namespace, p *topology.Port) (all []command) {
	if n.Own {
		all = append(all, command{"way of the port", "go run ./examples/map -why " + plain.Word(wantedOf(p))})
	}
	if in, ok := enter(n); ok {
		all = append(all, command{"firewall", in.run("nft list table " + words(p.Table))},
			command{"connections", in.run(fmt.Sprintf("conntrack -L -p %s --orig-port-dst %d", plain.Word(p.Proto), p.Host.Port()))})
	}
	if p.To == nil {
		return all
	}
	if to := s.Namespace(p.To.Inode); to != nil {
		if in, ok := enter(to); ok && (p.Proto == "tcp" || p.Proto == "udp") {
			all = append(all, command{"who listens there", in.run(fmt.Sprintf("ss -lnp --%s 'sport = :%d'", p.Proto, p.Box.Port()))})
		}
	}
	return all
}

// wantedOf is the port as -why takes it.
func wantedOf(p *topology.Port) string {
	text := fmt.Sprint(p.Host.Port())
	if a := p.Host.Addr(); a.IsValid() && !a.IsUnspecified() {
		text = p.Host.String()
	}
	if p.Proto != "tcp" {
		text += "/" + p.Proto
	}
	return text
}

// An entrance is how commands get into a namespace.
type entrance struct {
	own  bool
	name string // that `ip netns` knows
	file string
}

// enter returns the way into a namespace, if a name or a process leads there.
func enter(n *topology.Namespace) (e entrance, ok bool) {
	if n.Own {
		return entrance{own: true}, true
	}
	for _, name := range n.Names {
		if dir, base := path.Split(name); path.Clean(dir) == netns.DefaultDir {
			return entrance{name: base, file: name}, true
		}
	}
	switch {
	case len(n.Names) > 0:
		return entrance{file: n.Names[0]}, true
	case len(n.Processes) > 0:
		return entrance{file: fmt.Sprintf("/proc/%d/ns/net", n.Processes[0].Pid)}, true
	}
	return e, false
}

// ip is a command of ip(8) in the namespace.
func (e entrance) ip(args string) string { return e.of("ip", args) }

// bridge is a command of bridge(8) in the namespace.
func (e entrance) bridge(args string) string { return e.of("bridge", args) }

func (e entrance) of(program, args string) string {
	if e.name != "" {
		return program + " -n " + plain.Word(e.name) + " " + args
	}
	return e.run(program + " " + args)
}

// run is any command in the namespace.
func (e entrance) run(line string) string {
	switch {
	case e.own:
		return line
	case e.name != "":
		return "ip netns exec " + plain.Word(e.name) + " " + line
	}
	return "nsenter --net=" + plain.Word(e.file) + " " + line
}

// words quotes each word of a text.
func words(text string) string {
	all := strings.Fields(text)
	for i := range all {
		all[i] = plain.Word(all[i])
	}
	return strings.Join(all, " ")
}
