package main

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

const (
	// outerEnv carries the network namespace the program was started in. The copy that finds itself in another one is the
	// sandboxed copy; a value that was set by accident therefore never makes the program run on the machine's own network.
	outerEnv = "BOXWIRE_QUICKSTART_OUTER"
	// fetchEnv makes the program fetch one URL and print the answer: see the shared-namespace check.
	fetchEnv = "BOXWIRE_QUICKSTART_FETCH"

	// exitNoSandbox is the exit status when the machine does not let the program have namespaces of its own.
	exitNoSandbox = 3

	// exitNoIPv6 is the exit status when namespaces have no IPv6, which half of the checks show.
	exitNoIPv6 = 4
)

// sandboxed reports whether this process is the copy that runs in namespaces of its own.
func sandboxed() bool {
	outer := os.Getenv(outerEnv)
	inner, err := os.Readlink("/proc/self/ns/net")
	return outer != "" && err == nil && inner != outer
}

// runInSandbox runs this program again in a fresh mount and network namespace, and for a normal user in a fresh user
// namespace in which the user is root. It returns the exit status.
//
// The sandbox lives and dies with its processes: even if they are killed, nothing of it stays on the machine.
func runInSandbox() int {
	outer, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		return exitNoSandbox
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), outerEnv+"="+outer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}

	// The kernel sends Pdeathsig when the thread that started the child ends, so that thread has to be kept.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "quickstart: no namespaces of its own: %v\n%s", err, whyForbidden())
		return exitNoSandbox
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s) // a second one is harmless when the terminal has sent it to both
		}
	}()
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.Exited() {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		return 1
	}
	return 0
}

// prepareSandbox gives the sandboxed copy a /run/netns of its own, so that the names it makes are seen by no other process.
func prepareSandbox() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount a /run of its own: %w", err)
	}
	// A mount point already, so that making the first name adds none.
	if err := os.Mkdir(netns.DefaultDir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", netns.DefaultDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount a %s of its own: %w", netns.DefaultDir, err)
	}
	return nil
}

// needIPv6 says what keeps IPv6 from the sandbox, and how to have it. The library works without it.
func needIPv6() error {
	value, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("needs IPv6, which this kernel has not: it was built without, or booted with ipv6.disable=1")
	case err == nil && strings.TrimSpace(string(value)) == "1":
		return errors.New("needs IPv6, which new links have not: the kernel was booted with ipv6.disable_ipv6=1")
	}
	return nil
}

// whyForbidden names the settings that forbid namespaces, or to mount anything in them, as far as they can be seen.
func whyForbidden() string {
	var why strings.Builder
	for _, s := range []struct{ file, forbids, fix string }{
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=10000"},
		{"/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces=10000"},
		{"/proc/sys/user/max_mnt_namespaces", "0", "user.max_mnt_namespaces=10000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		value, err := os.ReadFile(s.file)
		if err == nil && strings.TrimSpace(string(value)) == s.forbids {
			fmt.Fprintf(&why, "%s is %s, which forbids namespaces: sysctl -w %s\n", s.file, s.forbids, s.fix)
		}
	}
	if why.Len() == 0 {
		why.WriteString("No setting forbids it: a security policy does (a container's, seccomp, AppArmor, SELinux), or a limit is reached\n" +
			"(/proc/sys/user/max_*_namespaces).\n")
	}
	return why.String()
}

// howToLook says how to enter the sandbox from another terminal.
func howToLook() string {
	enter := fmt.Sprintf("nsenter --target %d --mount --net", os.Getpid())
	if os.Getenv(outerEnv) != "" && inUserNamespace() {
		enter += " --user --preserve-credentials"
	}
	return fmt.Sprintf(`
Held until Ctrl-C. To look inside, from another terminal:
  %[1]s ip netns exec host nft list ruleset
  %[1]s ip netns exec web1 ip addr
  %[1]s ip netns exec outside curl -s http://203.0.113.1:8080/
`, enter)
}

// inUserNamespace reports whether root here is another user outside.
func inUserNamespace() bool {
	mapping, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(mapping))
	return err == nil && len(fields) == 3 && (fields[1] != "0" || fields[2] == "1")
}
