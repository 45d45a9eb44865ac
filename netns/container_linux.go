package netns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// OpenContainer returns a handle on the network namespace of a running container
// of Docker, podman, containerd or CRI-O. The id is the whole one, or at least
// the first 12 digits of it; a runtime's name before it, as Kubernetes writes
// them ("containerd://3f2a..."), is ignored. No daemon is asked: the container's
// processes are found by their cgroups in /proc (version 1 or 2, with systemd or
// without), and where it has none of its own, as children of its monitor, conmon
// or containerd-shim. The namespace is that of its oldest process, and for a
// container with the host's network the host's.
//
// Of two processes that claim the id, that counts whose cgroup fewer can make: one
// of root's before one of a user's, one on the machine before one inside another
// container, and any before a monitor's child. Whom it belongs to, [NS.Owner] says.
//
// A container that has no process in the program's pid namespace is
// os.ErrNotExist, and so is one that this user cannot see. An id that fits
// several containers is os.ErrInvalid.
func OpenContainer(ctx context.Context, id string) (*NS, error) {
	return openContainer(ctx, "/proc", id)
}

func openContainer(ctx context.Context, proc, id string) (*NS, error) {
	want, err := checkContainerID(id)
	var ns *NS
	if err == nil {
		ns, err = findContainer(ctx, proc, want)
	}
	if err != nil {
		return nil, &Error{Op: "netns.OpenContainer", Subject: strconv.Quote(id), Err: err}
	}
	return ns, nil
}

// member is a process of a container.
type member struct {
	pid     int
	claim          // to the container
	started uint64 // clock ticks after the machine
}

func findContainer(ctx context.Context, proc, want string) (*NS, error) {
	const tries = 3 // processes may end between being found and being opened
	for range tries {
		members, err := findMembers(ctx, proc, want)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			if m.id != members[0].id {
				return nil, refuse.Input("the id fits several containers, %s and %s", members[0].id, m.id)
			}
		}
		for _, m := range members {
			ns, err := openFile(fmt.Sprintf("%s/%d/ns/net", proc, m.pid))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue
			}
			if err != nil {
				return nil, err
			}
			// The same process as before, and not another with its pid?
			if _, started, err := stat(proc, m.pid); err == nil && started == m.started {
				return ns, nil
			}
			ns.Close()
		}
		if len(members) == 0 {
			return nil, fmt.Errorf("no process belongs to the container: %w", fs.ErrNotExist)
		}
	}
	return nil, fmt.Errorf("its processes keep ending: %w", fs.ErrNotExist)
}

// findMembers returns the processes of the container, the oldest first.
func findMembers(ctx context.Context, proc, want string) ([]member, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var members, children []member
	monitors := make(map[int]string) // pid: container
	parents := make(map[int]int)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// Whatever cannot be read belongs to a process that has ended, or to
		// another user's that is no container of ours.
		parent, started, err := stat(proc, pid)
		if err != nil {
			continue
		}
		m := member{pid: pid, started: started}
		if cgroup, err := os.ReadFile(fmt.Sprintf("%s/%d/cgroup", proc, pid)); err == nil {
			if c, ok := containerOf(string(cgroup), want); ok {
				m.claim = c
				members = append(members, m)
				continue
			}
		}
		parents[pid] = parent
		children = append(children, m)
		if cmdline, err := os.ReadFile(fmt.Sprintf("%s/%d/cmdline", proc, pid)); err == nil {
			// A monitor is beside its container; what calls itself so in one is not.
			if id, ok := monitored(string(cmdline), want); ok && samePidNS(proc, pid) {
				monitors[pid] = id
			}
		}
	}
	if len(members) == 0 {
		for _, m := range children {
			if id, ok := monitors[parents[m.pid]]; ok {
				m.id = id
				members = append(members, m)
			}
		}
	}
	slices.SortFunc(members, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.started, b.started), cmp.Compare(a.pid, b.pid))
	})
	for i, m := range members {
		if m.rank > members[0].rank {
			return members[:i], nil
		}
	}
	return members, nil
}

// samePidNS reports whether a process is in the program's own pid namespace.
func samePidNS(proc string, pid int) bool {
	own, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	its, err := os.Stat(fmt.Sprintf("%s/%d/ns/pid", proc, pid))
	return err == nil && os.SameFile(own, its)
}

// stat reads a process's parent and when it was started (proc(5), fields 4 and
// 22 of stat). The name before them is in brackets, and may contain some.
func stat(proc string, pid int) (parent int, started uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("%s/%d/stat", proc, pid))
	if err != nil {
		return 0, 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return 0, 0, fmt.Errorf("%s/%d/stat has %d fields", proc, pid, len(f)+2)
	}
	parent, err = strconv.Atoi(f[1])
	if err != nil {
		return 0, 0, err
	}
	started, err = strconv.ParseUint(f[19], 10, 64)
	return parent, started, err
}
