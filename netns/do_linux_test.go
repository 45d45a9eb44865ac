package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestThreadsComeHome lets many calls end in every way there is, some after
// wandering off on their thread, and then looks at every thread of the process.
// It is not parallel: others' threads are away while their tests run.
func TestThreadsComeHome(t *testing.T) {
	netnstest.Need(t)
	const workers, each = 32, 50
	spaces := make([]*netns.NS, 4)
	for i := range spaces {
		spaces[i] = netnstest.New(t)
	}
	var wg sync.WaitGroup
	for w := range workers {
		for i := range each {
			if i%10 != 0 {
				continue
			}
			wg.Go(func() { // a goroutine for each Goexit
				defer func() { recover() }()
				for j := range 10 {
					stay(t, spaces[(w+j)%len(spaces)], spaces[(w+j+1)%len(spaces)], j)
				}
			})
		}
	}
	wg.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for {
		away := strayThreads(t)
		if len(away) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("threads that are not at home: %v", away)
		}
		runtime.Gosched() // threads that end take a moment to
	}
}

// stay makes one call; how it ends depends on how.
func stay(t *testing.T, ns, other *netns.NS, how int) {
	_, err := netns.Do(t.Context(), ns, func(ctx context.Context) (int, error) {
		got, err := inode()
		if err != nil || got != ns.ID().Ino {
			return 0, fmt.Errorf("in %d, want %d (%w)", got, ns.ID().Ino, err)
		}
		switch how {
		case 5: // wander off to another network namespace
			return 0, other.WithFd(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) })
		case 6: // leave the mount namespace
			return 0, unix.Unshare(unix.CLONE_NEWNS)
		case 9:
			if ns.ID().Ino%2 == 0 {
				panic("on purpose")
			}
			runtime.Goexit()
		}
		return 0, nil
	})
	if err != nil {
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

func TestNothingIsLeftOpen(t *testing.T) {
	netnstest.Need(t)
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := count()
	for range 100 {
		ns, err := netns.New(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := netns.Do(t.Context(), ns, ignoreCtx(inode)); err != nil {
			t.Fatal(err)
		}
		if err := ns.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
