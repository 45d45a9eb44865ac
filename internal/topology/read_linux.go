package topology

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"

	"github.com/boxwire/boxwire/netns"
)

// readers is how many namespaces are read at the same time.
const readers = 8

// Read reads the network namespaces of the machine, as far as the caller may. A namespace that ends
// meanwhile is left out. What may not be read is named in Notes.
//
// It reads all of /proc, and so finds what is in the program's own pid namespace. It holds each
// namespace open while it reads it.
func Read(ctx context.Context, opts Options) (*Snapshot, error) {
	r, err := newReader(opts)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if err := r.scan(ctx); err != nil {
		return nil, err
	}
	r.refresh(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return r.snapshot(), nil
}

// A reader reads the machine, and reads again what may have changed.
type reader struct {
	opts    Options
	host    *netns.NS
	own     bool // host is the reader's to close
	spaces  map[uint64]*space
	notes   []string          // of the list of namespaces
	groups  map[int]Container // by the process
	changed bool              // a namespace has come or gone
	unheard map[int]bool      // ids of the host that no namespace was found for
	wanted  map[int]bool      // ids of the host that are new, or that events came with and that are not known
}

func newReader(opts Options) (*reader, error) {
	r := &reader{opts: opts, host: opts.Host, spaces: make(map[uint64]*space)}
	if r.host != nil {
		return r, nil
	}
	own, err := netns.Current()
	if err != nil {
		return nil, err
	}
	r.host, r.own = own, true
	return r, nil
}

func (r *reader) close() {
	if r.own {
		r.host.Close()
	}
}

// scan lists the namespaces. It marks those that are new to be read, and forgets those that are gone.
func (r *reader) scan(ctx context.Context) error {
	infos, err := netns.ListAll(ctx)
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	var notes []string
	if err != nil {
		notes = []string{"what processes of other users hold is not listed: CAP_SYS_PTRACE is missing"}
	}
	if !slices.Equal(notes, r.notes) {
		r.notes, r.changed = notes, true
	}
	was := r.spaces
	r.spaces = make(map[uint64]*space, len(infos))
	seen := make(map[int]Container)
	for _, info := range infos {
		if r.opts.Some != nil && !r.opts.Some(info) {
			continue
		}
		x := was[info.ID.Ino]
		if x == nil || x.info.ID != info.ID {
			x = &space{dirty: partAll, changed: true}
		}
		n := &Namespace{Inode: info.ID.Ino, Own: info.ID == r.host.ID(), Names: slices.Clone(info.Names)}
		if !n.Own {
			n.Processes = processes(info)
			n.Containers = r.containers(n.Processes, seen)
		}
		x.info = info
		if !reflect.DeepEqual(n, x.who) {
			x.who, x.changed = n, true
		}
		r.spaces[info.ID.Ino] = x
	}
	for inode, x := range was {
		r.changed = r.changed || r.spaces[inode] != x
	}
	r.groups = seen
	return nil
}

// processes are those that are in a namespace.
func processes(info netns.Info) (all []Process) {
	for _, h := range info.Holders {
		if h.Kind == netns.HolderProcess {
			all = append(all, Process{Pid: h.Pid, Comm: h.Comm})
		}
	}
	return all
}

// containers are those of the processes. What a process has said before is not read again.
func (r *reader) containers(processes []Process, seen map[int]Container) (all []Container) {
	for _, p := range processes {
		c, ok := r.groups[p.Pid]
		if !ok {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Pid))
			if err != nil {
				continue
			}
			c = containerOf(string(text))
		}
		seen[p.Pid] = c
		if c.ID != "" && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// refresh reads what is marked to be read. A namespace that has ended is forgotten.
func (r *reader) refresh(ctx context.Context) {
	if r.readDirty(ctx) && r.scan(ctx) == nil {
		r.readDirty(ctx) // what is held by others than before
	}
	r.askIDs(ctx)
	r.readDirty(ctx) // of those whose ids were not known when events came with them
	r.askIDs(ctx)
}

// readDirty reads several namespaces at a time. It reports whether one has ended, as it seems.
func (r *reader) readDirty(ctx context.Context) (ended bool) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, readers)
	for _, x := range r.spaces {
		if x.dirty == 0 {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			x.refresh(ctx, r)
			<-slots
		})
	}
	wg.Wait()
	for inode, x := range r.spaces {
		if x.ended {
			delete(r.spaces, inode)
			ended, r.changed = true, true
		}
	}
	return ended
}

// snapshot returns what was read. It shares nothing with later ones that changes.
func (r *reader) snapshot() *Snapshot {
	s := &Snapshot{Notes: slices.Clone(r.notes)}
	for _, x := range r.spaces {
		s.Namespaces = append(s.Namespaces, x.namespace())
	}
	at := s.byInode()
	r.pair(at)
	s.sort()
	s.lead()
	return s
}
