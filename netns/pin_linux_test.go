package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// Any user may hold the lock of the directory. A wait for it ends with the context, and
// once the directory is a mount point there is none.
func TestTheLockOfTheDirectory(t *testing.T) {
	if !inChild(t, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}) {
		return
	}
	netnstest.Need(t)
	ns := netnstest.New(t)
	lock, err := os.Open(netns.DefaultDir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for what, name := range map[string]func(context.Context) error{
		"Create": func(ctx context.Context) error { _, err := netns.Create(ctx, "web"); return err },
		"Pin":    func(ctx context.Context) error { _, err := netns.Pin(ctx, ns, "web"); return err },
	} {
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() { over <- name(ctx) }()
		settle(t, func() string {
			if waiters(t, lock) == 0 {
				return what + " does not wait for the lock"
			}
			return ""
		})
		cancel()
		if err := <-over; !errors.Is(err, context.Canceled) || !strings.Contains(fmt.Sprint(err), "lock") {
			t.Errorf("%s while the lock is held: %v", what, err)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
			t.Fatal(err)
		}
		settle(t, func() string { // the goroutine that was left behind gets the lock, and ends
			if n := descriptorsOf(t, netns.DefaultDir); n != 1 {
				return fmt.Sprintf("%s: %d descriptors of the directory, not 1", what, n)
			}
			return ""
		})
	}
	web := mustCreate(t, "web")
	defer web.Delete(t.Context())
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, "other").Delete(t.Context())
}

// waiters counts those who wait for a lock on the file (proc_locks(5)). Before Linux 5.17
// it does not list who waits behind another one.
func waiters(t *testing.T, file *os.File) (n int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	inode := fmt.Sprintf(" %02x:%02x:%d ", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, "->") && strings.Contains(line, inode) {
			n++
		}
	}
	return n
}

// descriptorsOf counts the process's descriptors of a file.
func descriptorsOf(t *testing.T, path string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == path {
			n++
		}
	}
	return n
}

// However many goroutines give and take one name, a Create works or finds that the
// name exists, a Delete works or finds that it does not, and what has worked adds up.
func TestOneNameOfManyGoroutines(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	for what, create := range map[string]func(context.Context, netns.Dir) (*netns.NS, error){
		"Create": func(ctx context.Context, f netns.Dir) (*netns.NS, error) { return f.Create(ctx, "web") },
		"Pin": func(ctx context.Context, f netns.Dir) (*netns.NS, error) {
			ns, err := netns.Current()
			if err != nil {
				return nil, err
			}
			defer ns.Close()
			return f.Pin(ctx, ns, "web")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ctx, f := t.Context(), netns.Dir(t.TempDir())
			var names atomic.Int32
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for range 50 {
						if i%2 == 0 {
							ns, err := create(ctx, f)
							ns.Close()
							if err == nil {
								names.Add(1)
							} else if !errors.Is(err, os.ErrExist) {
								t.Errorf("create: %v", err)
							}
						} else if err := f.Delete(ctx, "web"); err == nil {
							names.Add(-1)
						} else if !errors.Is(err, os.ErrNotExist) {
							t.Errorf("delete: %v", err)
						}
					}
				})
			}
			wg.Wait()
			if names.Load() == 1 {
				if err := f.Delete(ctx, "web"); err != nil {
					t.Error(err)
				}
			} else if names.Load() != 0 {
				t.Errorf("%d names more were made than taken away", names.Load())
			}
			if left, err := os.ReadDir(string(f)); err != nil || len(left) > 0 || mounted(t, string(f)+"/web") {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// The same with another process, as `ip netns` is one: between its steps and ours there
// is no lock.
func TestOneNameOfTwoProcesses(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	dir := t.TempDir()
	f := netns.Dir(dir)
	var wg sync.WaitGroup
	wg.Go(func() { // the name that it sees at the end is ours
		runChildEnv(t, "TestChildTakesANameAway", nil, dirEnv+"="+dir, "BOXWIRE_NETNSTEST_LEAKS=allow")
	})
	for range 200 {
		ns, err := f.Create(t.Context(), "web")
		ns.Close()
		if err != nil && !errors.Is(err, os.ErrExist) {
			t.Errorf("create: %v", err)
		}
	}
	wg.Wait()
	if err := netns.IgnoreNotExist(f.Delete(t.Context(), "web")); err != nil {
		t.Error(err)
	}
}

func TestChildTakesANameAway(t *testing.T) {
	childOnly(t)
	f := netns.Dir(os.Getenv(dirEnv))
	for range 1000 {
		if err := f.Delete(t.Context(), "web"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("delete: %v", err)
		}
	}
}
