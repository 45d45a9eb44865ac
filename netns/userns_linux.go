package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// NewInUserNS makes an unnamed network namespace with its loopback link up that
// belongs to a new user namespace: root inside administers it and nothing else.
// [Pin] gives it a name.
//
// A program with threads cannot enter a user namespace (setns(2)), so the two are
// made by a process of their own. It executes this program again, which the
// kernel stops (ptrace(2)) before the first instruction of it, and is killed
// when the namespaces are open; main does not run, and there is nothing to set
// up in it.
//
// Entering the namespace afterwards, and so setting lo up, takes CAP_SYS_ADMIN in
// the caller's own user namespace, too. Without it, without the privilege for
// the maps, and where ptrace is forbidden, the error is os.ErrPermission. Where
// user namespaces are switched off it is that or ENOSPC. Bad maps are
// os.ErrInvalid.
func NewInUserNS(ctx context.Context, u UserNS) (*NS, error) {
	ns, err := newInUserNS(ctx, u)
	if err != nil {
		return nil, &Error{Op: "netns.NewInUserNS", Err: err}
	}
	return ns, nil
}

func newInUserNS(ctx context.Context, u UserNS) (ns *NS, err error) {
	if err := errors.Join(u.check(), ctx.Err()); err != nil {
		return nil, err
	}
	// The thread that starts the process is its tracer and has to stay.
	err = onThread(func() error {
		pid, err := startStopped(u)
		if err != nil {
			return fmt.Errorf("making a user namespace: %w", err)
		}
		defer end(pid)
		ns, err = openFile(fmt.Sprintf("/proc/%d/ns/net", pid))
		return err
	})
	if err != nil {
		return nil, err
	}
	ns.path = "" // of a process that is gone
	conn, err := ns.Exchange(unix.NETLINK_ROUTE)
	if err == nil {
		err = loopbackUp(ctx, conn)
	}
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("setting lo up: %w", err)
	}
	return ns, nil
}

// startStopped starts a process in new network and user namespaces that has not
// begun to run. It ends with the calling thread, whatever happens: by its parent
// death signal until it is stopped, and by PTRACE_O_EXITKILL from then on.
func startStopped(u UserNS) (pid int, err error) {
	attr := &syscall.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{
		Cloneflags:                 unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings:                sysMaps(u.UIDs, os.Geteuid()),
		GidMappings:                sysMaps(u.GIDs, os.Getegid()),
		GidMappingsEnableSetgroups: u.SetGroups,
		Ptrace:                     true,
		Pdeathsig:                  unix.SIGKILL,
	}}
	const self = "/proc/self/exe"
	if pid, err = syscall.ForkExec(self, []string{self}, attr); err != nil {
		return 0, err
	}
	var status unix.WaitStatus
	if err = wait(pid, &status); err == nil && !status.Stopped() {
		return 0, fmt.Errorf("the process in it has ended (%#x)", uint32(status))
	}
	if err == nil {
		err = os.NewSyscallError("ptrace", unix.PtraceSetOptions(pid, unix.PTRACE_O_EXITKILL))
	}
	if err != nil {
		end(pid)
		return 0, err
	}
	return pid, nil
}

// sysMaps turns the maps into package syscall's, with the default for none.
func sysMaps(maps []IDMap, own int) []syscall.SysProcIDMap {
	if len(maps) == 0 {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: own, Size: 1}}
	}
	out := make([]syscall.SysProcIDMap, len(maps))
	for i, m := range maps {
		out[i] = syscall.SysProcIDMap{ContainerID: int(m.Inside), HostID: int(m.Outside), Size: int(m.Count)}
	}
	return out
}

// end kills the process and waits until it is gone.
func end(pid int) {
	_ = unix.Kill(pid, unix.SIGKILL)
	var status unix.WaitStatus
	for wait(pid, &status) == nil && !status.Exited() && !status.Signaled() {
	}
}

func wait(pid int, status *unix.WaitStatus) error {
	for {
		if _, err := unix.Wait4(pid, status, unix.WALL, nil); err != unix.EINTR {
			return os.NewSyscallError("wait4", err)
		}
	}
}
