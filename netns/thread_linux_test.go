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

// A thread with a root and a working directory of its own would show them to
// goroutines that know nothing of it.
func TestAThreadWithFilesOfItsOwnEnds(t *testing.T) {
	t.Parallel()
	if _, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 3, 0, 0, 0); errno != 0 {
		t.Skip("kcmp(2):", errno)
	}
	tid, err := netns.Do(t.Context(), netnstest.New(t), func(context.Context) (int, error) {
		return unix.Gettid(), unix.Unshare(unix.CLONE_FS)
	})
	if err != nil {
		t.Fatal(err)
	}
	ends(t, tid)
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
	other := exec.Command("sleep", "60")
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
