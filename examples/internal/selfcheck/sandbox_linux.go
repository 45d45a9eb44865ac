package selfcheck

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/netns"
)

// InSandbox reports whether this process is the copy that [Sandbox] runs in namespaces of its own.
//
// env carries the network namespace that the program was started in. A value that was set by accident never makes a program run on the
// machine's own network.
func InSandbox(env string) bool {
	outer := os.Getenv(env)
	inner, err := os.Readlink("/proc/self/ns/net")
	return outer != "" && err == nil && inner != outer
}

// Sandbox runs the program once more in a network and a mount namespace of its own, and for a normal user in a user namespace in which the
// user is root. In there Sandbox returns nil. Outside it waits and exits with the status of the copy; signals are passed on. It returns an
// error only where no such namespaces are to be had. /run of the copy is an empty file system of its own, so that it sees no other
// program's names and leaves no file.
//
// The copy dies with the program, and all that it has made dies with the copy.
func Sandbox(env string) error {
	if InSandbox(env) {
		return ownMounts()
	}
	outer, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	code, err := again(env+"="+outer, unix.CLONE_NEWNS|unix.CLONE_NEWNET)
	if errors.Is(err, unix.EPERM) {
		code, err = again(env+"="+outer, unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWUSER)
	}
	if err != nil {
		return err
	}
	os.Exit(code)
	panic("unreachable")
}

// again runs this program in new namespaces and returns its status.
func again(env string, flags uintptr) (int, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), env)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig is sent when the thread that started the copy ends
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		return 0, err
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s) // harmless a second time, when the terminal has sent it to both
		}
	}()
	err := cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 0, err
}

// ownMounts gives the copy a /run and a directory of namespaces that are its own.
func ownMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	for _, dir := range []string{"/run", netns.DefaultDir} { // the second a mount point already, so that names add none
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("mount a %s of its own: %w", dir, err)
		}
	}
	return nil
}

// WhyForbidden names the settings that forbid namespaces, or to mount anything in them, as far as they can be seen.
func WhyForbidden() string {
	var why strings.Builder
	for _, s := range []struct{ setting, forbids, fix string }{
		{"user/max_user_namespaces", "0", "user.max_user_namespaces=10000"},
		{"user/max_net_namespaces", "0", "user.max_net_namespaces=10000"},
		{"user/max_mnt_namespaces", "0", "user.max_mnt_namespaces=10000"},
		{"kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		value, err := os.ReadFile("/proc/sys/" + s.setting)
		if err == nil && strings.TrimSpace(string(value)) == s.forbids {
			fmt.Fprintf(&why, "/proc/sys/%s is %s, which forbids namespaces: sysctl -w %s\n", s.setting, s.forbids, s.fix)
		}
	}
	if why.Len() == 0 {
		why.WriteString("No setting forbids it: a security policy does (a container's, seccomp, AppArmor, SELinux), or a limit is reached\n" +
			"(/proc/sys/user/max_*_namespaces).\n")
	}
	return why.String()
}

// WhyNoIPv6 says what keeps IPv6 from the sandbox; "" is nothing.
func WhyNoIPv6() string {
	value, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "the kernel has no IPv6 (built without, or booted with ipv6.disable=1)"
	case err == nil && strings.TrimSpace(string(value)) == "1":
		return "new links have no IPv6 (net.ipv6.conf.default.disable_ipv6=1)"
	}
	return ""
}

// Enter is the command that enters the sandbox from another terminal.
func Enter() string {
	enter := fmt.Sprintf("nsenter --target %d --mount --net", os.Getpid())
	mapping, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(mapping))
	if err == nil && len(fields) == 3 && (fields[1] != "0" || fields[2] == "1") { // root here is another user outside
		enter += " --user --preserve-credentials"
	}
	return enter
}
