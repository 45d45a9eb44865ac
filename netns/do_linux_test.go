package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func ignoreCtx[T any](fn func() (T, error)) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { return fn() }
}

// inode returns the network namespace that the calling thread is in.
func inode() (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat("/proc/thread-self/ns/net", &st)
	return st.Ino, err
}

func TestDoRunsInside(t *testing.T) {
	t.Parallel()
	ns, other := netnstest.New(t), netnstest.New(t)
	type seen struct{ before, nested, after uint64 }
	got, err := netns.Do(t.Context(), ns, func(ctx context.Context) (s seen, err error) {
		s.before, err = inode()
		if err != nil {
			return s, err
		}
		if s.nested, err = netns.Do(ctx, other, ignoreCtx(inode)); err != nil {
			return s, err
		}
		s.after, err = inode()
		return s, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (seen{ns.ID().Ino, other.ID().Ino, ns.ID().Ino}); got != want {
		t.Errorf("inside: %v, want %v", got, want)
	}
}

func TestDoPassesErrorsPanicsAndGoexit(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	cause := errors.New("mine")
	if _, err := netns.Do(t.Context(), ns, ignoreCtx(func() (int, error) { return 0, cause })); err != cause {
		t.Errorf("error: %v, want fn's own", err)
	}
	func() {
		defer func() {
			p, ok := recover().(*netns.PanicError)
			if !ok || p.Value != cause || !errors.Is(p, cause) || !strings.Contains(string(p.Stack), "thisOnePanics") {
				t.Errorf("recovered %v", p)
			}
		}()
		netns.Do(t.Context(), ns, func(context.Context) (int, error) { return thisOnePanics(cause) })
	}()
	returned, exited := false, make(chan struct{})
	go func() {
		defer close(exited)
		netns.Do(t.Context(), ns, ignoreCtx(func() (int, error) { runtime.Goexit(); return 0, nil }))
		returned = true
	}()
	<-exited
	if returned {
		t.Error("Do returned after runtime.Goexit inside")
	}
}

func thisOnePanics(v any) (int, error) { panic(v) }

func TestDoHonoursContext(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := netns.Do(ctx, ns, func(ctx context.Context) (int, error) {
		cancel()
		<-ctx.Done()
		return 0, ctx.Err()
	})
	if err != context.Canceled {
		t.Errorf("cancelled inside: %v", err)
	}
	called := false
	_, err = netns.Do(ctx, ns, ignoreCtx(func() (int, error) { called = true; return 0, nil }))
	if !errors.Is(err, context.Canceled) || called {
		t.Errorf("cancelled before: %v, called: %v", err, called)
	}
	if _, err := netns.New(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("New: %v", err)
	}
	if _, err := netns.Create(ctx, "cancelled"); !errors.Is(err, context.Canceled) {
		t.Errorf("Create: %v", err)
	}
	if _, err := os.Stat("/run/netns/cancelled"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cancelled Create left its file: %v", err)
	}
}

// TestThreadsComeHome lets 10,000 calls from 200 goroutines over 20 namespaces end
// in every way there is, some after wandering off on their thread, and then looks
// at every thread of the process, its descriptors and its goroutines. It is not
// parallel: others' threads are away while their tests run.
func TestThreadsComeHome(t *testing.T) {
	netnstest.Need(t)
	workers, each, count := 200, 50, 20
	if testing.Short() {
		workers, each, count = 40, 25, 5
	}
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	spaces := make([]*netns.NS, count)
	for i := range spaces {
		var err error
		if spaces[i], err = netns.New(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var calls atomic.Int32
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				ns, other := spaces[(w+i)%count], spaces[(w+i+1)%count]
				over := make(chan struct{})
				go func() { // Goexit ends it
					defer close(over)
					defer calls.Add(1)
					defer func() {
						if p := recover(); p != nil && i%20 != panics {
							t.Error(p)
						}
					}()
					stay(t, ns, other, i%20)
				}()
				<-over
			}
		})
	}
	wg.Wait()
	if n := int(calls.Load()); n != workers*each {
		t.Errorf("%d calls were made, want %d", n, workers*each)
	}
	for _, ns := range spaces {
		ns.Close()
	}
	settle(t, func() string { // threads that end take a moment to
		away, g, f := strayThreads(t), runtime.NumGoroutine(), descriptors(t)
		if len(away) == 0 && g <= goroutines && f <= fds {
			return ""
		}
		return fmt.Sprintf("threads that are not at home: %v; %d goroutines, %d before; %d descriptors, %d before", away, g, goroutines, f, fds)
	})
}

// The ways in which stay's calls end, beside an ordinary return.
const (
	wanders     = iota + 1 // leaves the thread in another network namespace
	leavesMount            // leaves the thread in another mount namespace
	panics
	exits   // calls Goexit
	cancels // is cancelled inside
	unlocks // unlocks the thread, which is not its to unlock
	nests   // calls Do inside, which panics
)

// stay makes one call; how it ends depends on how.
func stay(t *testing.T, ns, other *netns.NS, how int) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cause := errors.New("on purpose")
	_, err := netns.Do(ctx, ns, func(ctx context.Context) (int, error) {
		got, err := inode()
		if err != nil || got != ns.ID().Ino {
			return 0, fmt.Errorf("in %d, want %d (%w)", got, ns.ID().Ino, err)
		}
		switch how {
		case wanders:
			return 0, other.WithFd(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) })
		case leavesMount:
			return 0, unix.Unshare(unix.CLONE_NEWNS)
		case panics:
			panic(cause)
		case exits:
			runtime.Goexit()
		case cancels:
			cancel()
			<-ctx.Done()
			return 0, ctx.Err()
		case unlocks:
			runtime.UnlockOSThread()
			runtime.Gosched()
			if got, err := inode(); err != nil || got != ns.ID().Ino {
				return 0, fmt.Errorf("unlocked: in %d, want %d (%w)", got, ns.ID().Ino, err)
			}
		case nests:
			defer func() {
				if p, ok := recover().(*netns.PanicError); !ok || p.Value != cause {
					t.Errorf("recovered %v", p)
				}
			}()
			return netns.Do(ctx, other, func(context.Context) (int, error) { panic(cause) })
		}
		return 0, nil
	})
	if err != nil && (how != cancels || !errors.Is(err, context.Canceled)) {
		t.Error(err)
	}
}

// strayThreads lists the threads that are in another network or mount namespace
// than the process.
func strayThreads(t *testing.T) (away []string) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"net", "mnt"} {
		home, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			at, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/" + kind)
			if err == nil && at != home {
				away = append(away, task.Name()+" "+at)
			}
		}
	}
	return away
}

// What the package documentation says about the files of /proc.
func TestProcFilesInside(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "ip", "link", "add", "only-here", "type", "bridge")
	for path, want := range map[string]bool{
		"/proc/thread-self/net/dev":         true,
		"/proc/self/net/dev":                false,
		"/proc/net/dev":                     false,
		"/proc/sys/net/ipv4/conf/only-here": true,
		"/sys/class/net/only-here":          false,
	} {
		got, err := netns.Do(t.Context(), ns, func(context.Context) (bool, error) {
			if !strings.HasSuffix(path, "/dev") {
				_, err := os.Stat(path)
				return err == nil, nil
			}
			b, err := os.ReadFile(path)
			return strings.Contains(string(b), "only-here"), err
		})
		if err != nil || got != want {
			t.Errorf("%s shows the namespace of the thread: %v (%v), want %v", path, got, err, want)
		}
	}
}
