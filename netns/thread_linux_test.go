package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/tool"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// ends waits until a thread of the process has ended.
func ends(t *testing.T, tid int) {
	t.Helper()
	settle(t, func() string {
		if _, err := os.Stat(fmt.Sprint("/proc/self/task/", tid)); err == nil {
			return "the thread has not ended"
		}
		return ""
	})
}

// A thread with namespaces, a working directory or descriptors of its own would show
// them to goroutines that know nothing of it, and start processes there.
func TestAThreadThatHasLeftEnds(t *testing.T) {
	t.Parallel()
	kcmp := func(t *testing.T) {
		if _, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 3, 0, 0, 0); errno != 0 {
			t.Skip("kcmp(2):", errno)
		}
	}
	for _, c := range []struct {
		name  string
		flags int
		file  string // in /proc/PID/ns; "" for what kcmp compares
	}{
		{"mount", unix.CLONE_NEWNS, "mnt"},
		{"UTS", unix.CLONE_NEWUTS, "uts"},
		{"IPC", unix.CLONE_NEWIPC, "ipc"},
		{"cgroup", unix.CLONE_NEWCGROUP, "cgroup"},
		{"pid", unix.CLONE_NEWPID, "pid_for_children"},
		{"time", unix.CLONE_NEWTIME, "time_for_children"},
		{"working directory", unix.CLONE_FS, ""},
		{"descriptors", unix.CLONE_FILES, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.file == "" {
				kcmp(t)
			} else if _, err := os.Lstat("/proc/self/ns/" + c.file); err != nil {
				testutil.NeedKernel(t, 5, 6, c.name+" namespaces", err)
			}
			tid, err := netns.Do(t.Context(), netnstest.New(t), func(context.Context) (int, error) {
				return unix.Gettid(), unix.Unshare(c.flags)
			})
			if err != nil {
				t.Fatal(err)
			}
			ends(t, tid)
		})
	}
}

// A thread that joins a process in all of its namespaces at once is in another
// mount namespace though it shares the process's file system context.
func TestAThreadThatHasJoinedAProcessEnds(t *testing.T) {
	// It changes the root directory of its process.
	if !inChild(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}) {
		return
	}
	// The process dies with the thread that starts it, which must not be the one
	// that Do takes and lets end.
	runtime.LockOSThread()
	other := exec.Command(tool.Path(t, "sleep"), "60")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	fd, err := unix.PidfdOpen(other.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ns, err := netns.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	home, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	tid, err := netns.Do(t.Context(), ns, func(context.Context) (int, error) {
		if err := unix.Setns(fd, unix.CLONE_NEWNS|unix.CLONE_NEWNET); err != nil {
			return 0, err
		}
		if at, err := os.Readlink("/proc/thread-self/ns/mnt"); err != nil || at == home {
			return 0, fmt.Errorf("the thread has not moved: %s (%w)", at, err)
		}
		return unix.Gettid(), nil
	})
	if errors.Is(err, unix.EINVAL) {
		t.Log("this kernel lets no thread join that shares its root directory with others (6.12.117 does not)")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	ends(t, tid)
	if away := strayThreads(t); len(away) > 0 {
		t.Errorf("threads that are not at home: %v", away)
	}
}
