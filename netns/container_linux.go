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

// OpenContainer returns a handle on the network namespace of a running container of Docker,
// podman, containerd or CRI-O. The id is the whole one, or at least its first 12 digits. A
// runtime's prefix, as Kubernetes writes it ("containerd://3f2a..."), is ignored. The
// namespace is that of the container's oldest process; for a container with the host's
// network it is the host's.
//
// No daemon is asked. The container's processes are found by their cgroups in /proc
// (version 1 or 2, with systemd or without). A container without a cgroup of its own is
// found by its monitor, conmon or containerd-shim: its processes are the monitor's
// children. Only a monitor that runs as root or as the caller counts.
//
// If several processes match, the one whose cgroup needs the most privilege wins: root's
// before a user's, the host's before one inside another container, and any before a
// monitor's child. [NS.Owner] reports to whom the namespace belongs.
//
// A container without a process that the caller can see in its pid namespace is
// os.ErrNotExist. So are fewer than 12 digits, and a name that a runtime gives besides the
// id ("web"), which only the runtime knows; the error says what is missing. An id that
// several containers match is os.ErrInvalid.
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
			return nil, noContainer(want)
		}
	}
	return nil, refuse.As(fs.ErrNotExist, "its processes keep ending")
}

// noContainer says that there is no such container, and what might have been meant.
func noContainer(want string) error {
	const none = "no process belongs to such a container"
	switch {
	case isID(want) || len(want) >= minPrefix && isHex(want):
		return refuse.As(fs.ErrNotExist, "%s", none)
	case isHex(want):
		return refuse.As(fs.ErrNotExist, "%s, and of a container's id at least %d digits are needed, not %d", none, minPrefix, len(want))
	}
	return refuse.As(fs.ErrNotExist, "%s, and %q is not the id that `docker ps` or `podman ps` shows; a container's name is known to its runtime alone",
		none, want)
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
			// A monitor is beside its container; what calls itself so in one is not, nor is
			// another user's process: any program can be called conmon.
			if id, ok := monitored(string(cmdline), want); ok && samePidNS(proc, pid) && trusted(proc, pid) {
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

// trusted reports whether a process is root's or the caller's own, by all of its user
// ids: those of a set-user-ID program differ. The owner of /proc/PID does not say so;
// it is root's for a process that does not let itself be dumped (proc(5)).
func trusted(proc string, pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("%s/%d/status", proc, pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		ids, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		f := strings.Fields(ids)
		for _, id := range f {
			if id != f[0] {
				return false
			}
		}
		return len(f) == 4 && (f[0] == "0" || f[0] == strconv.Itoa(os.Geteuid()))
	}
	return false
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
