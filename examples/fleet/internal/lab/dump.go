//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// Picture writes how the lab's namespaces are wired to each other, as a tree.
func (l *Lab) Picture(ctx context.Context, w io.Writer) error {
	l.mu.Lock()
	spaces := append([]*space(nil), l.spaces...)
	l.mu.Unlock()
	names := make(map[uint64]string)
	for _, s := range spaces {
		names[s.ns.ID().Ino] = s.name
	}
	snapshot, err := topology.Read(ctx, topology.Options{Some: func(info netns.Info) bool {
		_, ok := names[info.ID.Ino]
		return ok
	}})
	if err != nil {
		return err
	}
	snapshot.Notes = nil // of processes of others
	for _, n := range snapshot.Namespaces {
		if name := names[n.Inode]; name != "" && !n.Own {
			n.Names = []string{name}
		}
	}
	return topology.WriteTree(w, snapshot)
}

// Dump writes the state of the lab for a person who looks for a fault: the picture, the routes of the hosts, and each
// process with what it has printed. What cannot be read says so in its place.
func (l *Lab) Dump(w io.Writer) {
	// The context of the one who failed is over, as a rule.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.Picture(ctx, w); err != nil {
		fmt.Fprintln(w, "no picture:", err)
	}
	l.mu.Lock()
	hosts := append([]*Host(nil), l.Hosts...)
	processes := append([]*Process(nil), l.processes...)
	l.mu.Unlock()
	for _, h := range hosts {
		if h.NS == nil {
			continue // it could not be made
		}
		fmt.Fprintf(w, "\nroutes of %s:\n", h.Name)
		routes, err := route.List(ctx, h.NS, route.Filter{Table: route.TableMain})
		if err != nil {
			fmt.Fprintln(w, "  unknown:", err)
		}
		for _, r := range routes {
			fmt.Fprintln(w, "  "+r.String())
		}
	}
	for _, p := range processes {
		state := "not started"
		if pid := p.Pid(); pid != 0 {
			state = fmt.Sprintf("runs as %d", pid)
		} else if code, err := p.Wait(ctx); err == nil {
			state = fmt.Sprintf("ended with status %d", code)
		}
		fmt.Fprintf(w, "\n%s (%s):\n", p.Name, state)
		for line := range strings.Lines(p.Output()) {
			fmt.Fprint(w, "  "+line)
		}
	}
}
