package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/boxwire/boxwire/internal/limit"
	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// NewInUserNS makes an unnamed network namespace, with its loopback link up, that a new
// user namespace owns. Root in there administers the network namespace alone.
// [Pin] gives it a name.
//
// A process with several threads cannot enter a user namespace (setns(2)), so another
// process makes both. It executes this program again, which the kernel stops before its
// first instruction (ptrace(2)), and is killed when the namespaces are open. main does not
// run in it.
//
// Entering the namespace, and so setting lo up, takes CAP_SYS_ADMIN in the caller's own
// user namespace, too. Without it, without the privilege for the maps, and where ptrace is
// forbidden, the error is os.ErrPermission. Where user namespaces are switched off it is
// os.ErrPermission or syscall.ENOSPC. Bad maps are os.ErrInvalid.
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
	err = onThread(nil, func() error {
		pid, err := startStopped(u)
		if err != nil {
			return explainUserNS(u, fmt.Errorf("making a user namespace: %w", err))
		}
		defer end(pid)
		ns, err = openFile(fmt.Sprintf("/proc/%d/ns/net", pid))
		return err
	})
	if err != nil {
		return nil, err
	}
	ns.path = "" // of a process that is gone
	socket, err := ns.dialConn(unix.NETLINK_ROUTE)
	if err == nil {
		err = ns.loopbackUp(socket)
	}
	if err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// explainUserNS names the limit that is reached, or the first capability that is missing: to enter the namespace
// later, for maps that are not of the caller alone, and for root outside in a map
// (CAP_SETFCAP, Linux 5.12 and later releases of 5.10; user_namespaces(7)).
func explainUserNS(u UserNS, err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return privilege.Explain(err, limit.Namespaces("user", "net"))
	}
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	needs := []privilege.Cap{privilege.SysAdmin}
	if u.UIDs != nil {
		needs = append(needs, privilege.SetUID)
	}
	if u.GIDs != nil || u.SetGroups {
		needs = append(needs, privilege.SetGID)
	}
	for _, c := range append(needs, privilege.SetFCap) {
		if hint := c.Missing(); hint != "" {
			return privilege.Explain(err, hint)
		}
	}
	return err
}

// startStopped starts a process in new network and user namespaces that has not
// begun to run. It ends with the calling thread, whatever happens: by its parent
// death signal until it is stopped, and by PTRACE_O_EXITKILL from then on.
func startStopped(u UserNS) (pid int, err error) {
	attr := &syscall.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{
		// The maps are written below: package syscall leaves descriptors of its own for
		// them where the process cannot be made (Go 1.26).
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		Ptrace:     true,
		Pdeathsig:  unix.SIGKILL,
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
	if err == nil {
		err = u.writeMaps(pid)
	}
	if err != nil {
		end(pid)
		return 0, err
	}
	return pid, nil
}

// writeMaps gives the process's user namespace its users (user_namespaces(7)).
func (u UserNS) writeMaps(pid int) error {
	setGroups := "deny"
	if u.SetGroups {
		setGroups = "allow"
	}
	for _, f := range []struct{ name, content string }{
		{"uid_map", formatMaps(u.UIDs, os.Geteuid())},
		{"setgroups", setGroups},
		{"gid_map", formatMaps(u.GIDs, os.Getegid())},
	} {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, f.name), []byte(f.content), 0); err != nil {
			return err
		}
	}
	return nil
}

// formatMaps writes the maps as the kernel reads them, with the default for none.
func formatMaps(maps []IDMap, own int) string {
	if len(maps) == 0 {
		maps = []IDMap{{Inside: 0, Outside: uint32(own), Count: 1}}
	}
	var b strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&b, "%d %d %d\n", m.Inside, m.Outside, m.Count)
	}
	return b.String()
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
