//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// runDir is where the plugin's own files are. They need not outlive the machine.
const runDir = "/run/boxwire-cni"

// waitingFile lists the host ports that attachments have asked for and that another
// attachment of the same container has: an engine hands the same ports to each of a
// container's networks. When the one that has a port goes, the next one gets it.
const waitingFile = runDir + "/waiting"

// A waiter is an attachment with ports that it waits for.
type waiter struct {
	Link  string     `json:"link"` // the host's end
	Host  uint64     `json:"host"` // inode of the namespace it is in
	Boot  string     `json:"boot"` // of the machine, since inodes are used again
	Ports []nat.Port `json:"ports"`
}

// waiters reads the list, without those whose links are gone; stale says that the file
// has some of these. A list that cannot be read is empty: at worst a port is not handed
// over. To change it takes the lock.
func waiters(ctx context.Context, host *netns.NS) (all []waiter, stale bool, err error) {
	b, err := os.ReadFile(waitingFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, failed("reading the ports that are waited for", err)
	}
	if json.Unmarshal(b, &all) != nil {
		return nil, true, nil
	}
	boot, err := bootID()
	if err != nil {
		return nil, false, err
	}
	alive, err := hostEnds(ctx, host)
	if err != nil {
		return nil, false, err
	}
	n := len(all)
	all = slices.DeleteFunc(all, func(w waiter) bool {
		return w.Boot != boot || w.Host == host.ID().Ino && !alive[w.Link]
	})
	return all, len(all) < n, nil
}

// saveWaiters replaces the list.
func saveWaiters(all []waiter) error {
	return failed("writing the ports that are waited for", saveList(waitingFile, all))
}

// saveList replaces the list in a file of runDir; an empty one has no file.
func saveList[T any](file string, all []T) error {
	if len(all) == 0 {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.MarshalIndent(all, "", "\t")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err == nil {
		err = os.WriteFile(file+".new", append(b, '\n'), 0o644)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	return err
}

// wait notes that an attachment waits for ports, or for none any more.
func (r *request) wait(ctx context.Context, ports []nat.Port) error {
	all, stale, err := waiters(ctx, r.host)
	if err != nil {
		return err
	}
	mine := func(w waiter) bool { return w.Link == r.at.link() && w.Host == r.host.ID().Ino }
	if len(ports) == 0 && !stale && !slices.ContainsFunc(all, mine) {
		return nil
	}
	all = slices.DeleteFunc(all, mine)
	if len(ports) > 0 {
		boot, err := bootID()
		if err != nil {
			return err
		}
		all = append(all, waiter{Link: r.at.link(), Host: r.host.ID().Ino, Boot: boot, Ports: ports})
	}
	return saveWaiters(all)
}

// waitsFor returns the ports that the attachment waits for.
func (r *request) waitsFor(ctx context.Context) ([]nat.Port, error) {
	all, _, err := waiters(ctx, r.host)
	for _, w := range all {
		if w.Link == r.at.link() && w.Host == r.host.ID().Ino {
			return w.Ports, err
		}
	}
	return nil, err
}

// handOver publishes what is waited for and free now.
func handOver(ctx context.Context, host *netns.NS, gw *nat.NAT) error {
	all, stale, err := waiters(ctx, host)
	if err != nil || len(all) == 0 && !stale {
		return err
	}
	var errs []error
	for i := range all {
		if all[i].Host != host.ID().Ino {
			continue
		}
		all[i].Ports = slices.DeleteFunc(all[i].Ports, func(p nat.Port) bool {
			err := gw.Publish(ctx, p)
			if err != nil && !errors.Is(err, os.ErrExist) {
				errs = append(errs, failed("handing a port over", err))
			}
			return err == nil
		})
	}
	all = slices.DeleteFunc(all, func(w waiter) bool { return len(w.Ports) == 0 })
	return errors.Join(append(errs, saveWaiters(all))...)
}

// heldByOther splits ports into those that another attachment of the same container
// holds, and the others, which are free or another container's.
func (r *request) heldByOther(published []nat.Published, ports []nat.Port) (free, held []nat.Port) {
	for _, p := range ports {
		if slices.ContainsFunc(published, func(h nat.Published) bool {
			return r.at.isSibling(h.Owner) && overlap(h.Port, p)
		}) {
			held = append(held, p)
		} else {
			free = append(free, p)
		}
	}
	return free, held
}

// isSibling says whether an owner is another attachment of the same container.
func (a attachment) isSibling(owner string) bool {
	parts := strings.Split(owner, "/")
	return owner != a.owner() && len(parts) == 3 && parts[1] == key(a.container, 64)
}

// overlap says whether two single ports take each other's place.
func overlap(a, b nat.Port) bool {
	ha, hb := a.Host.Addr(), b.Host.Addr()
	return a.Proto == b.Proto && a.Host.Port() == b.Host.Port() && ha.Is4() == hb.Is4() &&
		(ha == hb || ha.IsUnspecified() || hb.IsUnspecified())
}

// hostEnds are the names of the host's pairs.
func hostEnds(ctx context.Context, host *netns.NS) (map[string]bool, error) {
	links, err := link.List(ctx, host, link.Filter{Kind: "veth"})
	if err != nil {
		return nil, failed("listing the host's links", err)
	}
	names := map[string]bool{}
	for _, l := range links {
		names[l.Name] = true
	}
	return names, nil
}
