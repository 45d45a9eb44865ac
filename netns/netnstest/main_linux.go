package netnstest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/limit"
	"github.com/boxwire/boxwire/internal/privilege"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// insideEnv marks the second run of the test binary, by again. A run that a test
// starts itself, of its own binary, finds stay there: it remains where it is.
const (
	insideEnv = "BOXWIRE_NETNSTEST_INSIDE"
	furnished = "1"
	stay      = "stay"
)

// forbidden says why there are no namespaces to be had; "" when there are.
var forbidden string

// Main is what a package's TestMain calls. It runs the test binary once more, in
// a network and a mount namespace of its own (and a user namespace if need be),
// waits for it, and exits with its status. There, /run is an empty file system
// of the run's own, so that no other program sees named namespaces.
//
// When the tests have passed, it looks at what they have left: descriptors,
// goroutines, child processes, mounts, names, and threads in another namespace.
// If there is something, it is printed, with the stack that made it where that is
// known, and the status is 1. With BOXWIRE_NETNSTEST_LEAKS=allow in the
// environment it is only printed.
func Main(m *testing.M) {
	called = true
	switch os.Getenv(insideEnv) {
	case "":
		if code, err := again(); err != nil {
			forbidden = explain(err)
		} else {
			os.Exit(code)
		}
		skipExamples()
		os.Exit(m.Run())
	case stay:
	default:
		os.Setenv(insideEnv, stay)
		if err := prepareNamespaces(); err != nil {
			forbidden = explain(err)
		}
	}
	os.Exit(runAndLook(m))
}

// skipExamples leaves out examples, which cannot skip themselves.
func skipExamples() {
	flag.Parse()
	if !isSet("test.skip") {
		_ = flag.Set("test.skip", "^Example")
	}
}

// again runs this binary in namespaces of its own and returns its status. An error means
// that it did not run. The binary is executed again because a process with several threads
// cannot enter a user namespace.
func again() (int, error) {
	code, err := run(unix.CLONE_NEWNET | unix.CLONE_NEWNS)
	if errors.Is(err, unix.EPERM) {
		code, err = run(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUSER)
	}
	return code, err
}

func run(flags uintptr) (int, error) {
	// The child dies with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideEnv+"="+furnished)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	defer signal.Stop(signals)
	err := cmd.Start()
	if errors.Is(err, unix.ENOSPC) {
		kinds := []string{"net", "mnt"}
		if flags&unix.CLONE_NEWUSER != 0 {
			kinds = append(kinds, "user")
		}
		err = privilege.Explain(err, limit.Namespaces(kinds...))
	}
	if err != nil {
		return 0, err
	}
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case s := <-signals:
				cmd.Process.Signal(s) // go test -timeout sends SIGQUIT for the stacks
			case <-over:
				return
			}
		}
	}()
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
		if status.Signaled() {
			fmt.Fprintf(os.Stderr, "netnstest: the test run was ended by a signal: %v\n", status.Signal())
			return 128 + int(status.Signal()), nil
		}
		return status.ExitStatus(), nil
	}
	return 0, err
}

// prepareNamespaces prepares the new namespaces for tests.
func prepareNamespaces() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mounting a file system of the tests' own on /run: %w", err)
	}
	if os.Getenv(ipv6Env) == "disabled" {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: %w", ipv6Env, err)
		}
	}
	return os.Mkdir(filepath.Clean(netns.DefaultDir), 0o755)
}

// settings are the switches that forbid user namespaces, or to do anything in them,
// with the value that does so.
var settings = []struct{ path, forbids string }{
	{"/proc/sys/kernel/unprivileged_userns_clone", "0"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"},
}

// explain says which setting or limit of the machine forbids namespaces.
func explain(err error) string {
	if !errors.Is(err, os.ErrPermission) {
		return fmt.Sprintf("no namespaces for tests: %v", err)
	}
	for _, s := range settings {
		b, rerr := os.ReadFile(s.path)
		if rerr == nil && strings.TrimSpace(string(b)) == s.forbids {
			name := strings.ReplaceAll(strings.TrimPrefix(s.path, "/proc/sys/"), "/", ".")
			return fmt.Sprintf("no namespaces for tests: %v: the setting %s is %s", err, name, s.forbids)
		}
	}
	return fmt.Sprintf("no namespaces for tests: %v: a security policy (seccomp, a container's) forbids them", err)
}
