//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	resolvConf   = "/etc/resolv.conf"
	resolverAddr = "127.0.0.53:53" // of the forwarder, in the box
	resolvText   = "nameserver 127.0.0.53\n"

	// boxFd is the descriptor that the box's namespace is handed over by.
	boxFd = 3
)

// lookupSockets are sockets of the host's programs that resolve names for the C library, beside
// /etc/resolv.conf (nss-resolve(8), nscd(8)). The box shares the host's files, so it would reach
// them.
var lookupSockets = []string{"/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket", "/var/run/nscd/socket"}

// inside makes this process the command: it enters the box, gets its resolv.conf, gives up what
// could undo the box, and executes. args are the path of the command, and the command.
func inside(args []string) (status int, err error) {
	runtime.LockOSThread() // namespaces and capabilities are a thread's
	steps := []struct {
		what string
		do   func() error
	}{
		{"entering the box", enter},
		{"mounting " + resolvConf, mountResolvConf},
		{"dropping capabilities", dropCapabilities},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return statusOurs, fmt.Errorf("%s: %w", s.what, err)
		}
	}
	err = &os.PathError{Op: "exec", Path: args[0], Err: syscall.Exec(args[0], args[1:], os.Environ())}
	if errors.Is(err, fs.ErrNotExist) {
		return statusUnknown, err
	}
	return statusCannot, err
}

// enter enters the box's network.
func enter() error {
	if err := unix.Setns(boxFd, unix.CLONE_NEWNET); err != nil {
		return err
	}
	return unix.Close(boxFd)
}

// mountResolvConf mounts a resolv.conf over the host's, in the mount namespace that the process was
// started with. The file needs a file system, which is mounted over a directory for a moment.
func mountResolvConf() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, s := range lookupSockets {
		if err := unix.Mount(os.DevNull, s, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("hiding %s: %w", s, err)
		}
	}
	const dir = "/tmp"
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
		return err
	}
	file := filepath.Join(dir, "resolv.conf")
	err := os.WriteFile(file, []byte(resolvText), 0o644)
	if err == nil {
		err = unix.Mount(file, resolvConf, "", unix.MS_BIND, "")
	}
	return errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
}

// kept are the capabilities that the command has where it is root: those that do not reach beyond
// its files and its own network. Without CAP_SYS_ADMIN it cannot enter the host's network, without
// CAP_SYS_PTRACE it cannot make another process do so.
var kept = []int{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
	unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW,
}

// dropCapabilities takes all other capabilities for good: from the bounding set, which limits what
// executing a file gives, and from those in force (capabilities(7)).
func dropCapabilities() error {
	var keep [2]uint32
	for c := 0; ; c++ {
		if slices.Contains(kept, c) {
			keep[c/32] |= 1 << (c % 32)
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err == unix.EINVAL {
			break // the last one is behind us
		} else if err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have, want [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return err
	}
	for i := range want {
		want[i].Permitted = have[i].Permitted & keep[i]
		want[i].Effective = want[i].Permitted
	}
	return unix.Capset(&header, &want[0])
}
