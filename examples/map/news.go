package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/topology"
)

// maxNews is how many changes are told one by one.
const maxNews = 30

// bounded keeps the last of many changes.
func bounded(news []string) []string {
	if n := len(news); n > maxNews {
		return append([]string{fmt.Sprintf("%d changes, of which these are the last", n)}, news[n-maxNews+1:]...)
	}
	return news
}

// news says in words what has changed from one snapshot to the next.
func news(old, now *topology.Snapshot) (all []string) {
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	before := make(map[uint64]*topology.Namespace, len(old.Namespaces))
	for _, n := range old.Namespaces {
		before[n.Inode] = n
	}
	for _, n := range now.Namespaces {
		was := before[n.Inode]
		delete(before, n.Inode)
		switch {
		case was == nil:
			say("%s came", n.Title())
			ports(say, &topology.Namespace{Inode: n.Inode}, n)
		case was != n:
			changed(say, was, n)
		}
	}
	for _, n := range old.Namespaces {
		if before[n.Inode] != nil {
			say("%s went", n.Title())
		}
	}
	return bounded(all)
}

// changed says what has changed in a namespace.
func changed(say func(string, ...any), was, n *topology.Namespace) {
	title := n.Title()
	if old := was.Title(); old != title {
		say("%s is called %s now", old, title)
	}
	links(say, title, was.Links, n.Links)
	came, went := differ(was.Listeners, n.Listeners)
	for _, l := range came {
		say("%s listens on %s %v", title, l.Proto, l.Addr)
	}
	for _, l := range went {
		say("%s no longer listens on %s %v", title, l.Proto, l.Addr)
	}
	ports(say, was, n)
	if came, went := differ(was.Processes, n.Processes); len(came)+len(went) > 0 {
		say("%s: the processes changed", title)
	}
	if !slices.Equal(was.Routes, n.Routes) || was.More != n.More {
		say("%s: the routes changed", title)
	}
	if !reflect.DeepEqual(was.Networks, n.Networks) {
		say("%s: the networks changed", title)
	}
}

// links says what has changed among the links of a namespace.
func links(say func(string, ...any), title string, was, now []*topology.Link) {
	before := make(map[int]*topology.Link, len(was))
	for _, l := range was {
		before[l.Index] = l
	}
	var came, went, other []string
	for _, l := range now {
		switch b := before[l.Index]; {
		case b == nil:
			came = append(came, l.Name)
		case b != l && !reflect.DeepEqual(b, l):
			other = append(other, l.Name)
		}
		delete(before, l.Index)
	}
	for _, l := range was {
		if before[l.Index] != nil {
			went = append(went, l.Name)
		}
	}
	for _, x := range []struct {
		names []string
		what  string
	}{{came, "came"}, {went, "went"}, {other, "changed"}} {
		if len(x.names) > 0 {
			say("%s: %s %s", title, strings.Join(x.names, ", "), x.what)
		}
	}
}

// ports says what has changed among the ports of a namespace.
func ports(say func(string, ...any), was, n *topology.Namespace) {
	before := make(map[string]*topology.Port, len(was.Ports))
	for i := range was.Ports {
		before[was.PortKey(&was.Ports[i])] = &was.Ports[i]
	}
	for i := range n.Ports {
		p := &n.Ports[i]
		key := n.PortKey(p)
		b := before[key]
		delete(before, key)
		switch {
		case b == nil:
			say("port %s is published", portName(p))
			if p.Fault != "" {
				say("port %s: %s", portName(p), p.Fault)
			}
		case b.Fault != p.Fault && p.Fault == "":
			say("port %s has no fault any more", portName(p))
		case b.Fault != p.Fault:
			say("port %s: %s", portName(p), p.Fault)
		case !reflect.DeepEqual(b, p):
			say("port %s changed", portName(p))
		}
	}
	for i := range was.Ports {
		if p := &was.Ports[i]; before[was.PortKey(p)] != nil {
			say("port %s is closed", portName(p))
		}
	}
}

// portName is what a port is called in a sentence: "tcp 0.0.0.0:8080".
func portName(p *topology.Port) string {
	name := fmt.Sprintf("%s %v", p.Proto, p.Host)
	if p.Last > p.Host.Port() {
		name += fmt.Sprintf("-%d", p.Last)
	}
	return name
}

// differ returns what only the new list has, and what only the old one has.
func differ[T comparable](old, now []T) (came, went []T) {
	count := make(map[T]int, len(old))
	for _, x := range old {
		count[x]++
	}
	for _, x := range now {
		if count[x]--; count[x] < 0 {
			came = append(came, x)
		}
	}
	for _, x := range old {
		if count[x] > 0 {
			count[x]--
			went = append(went, x)
		}
	}
	return came, went
}
