package netns_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// away returns an errand that goes to another namespace and calls then there.
func away(t *testing.T, ns *netns.NS, tid *int, then func()) func() error {
	return func() error {
		*tid = unix.Gettid()
		err := ns.WithFd(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) })
		if got, ierr := inode(); err != nil || ierr != nil || got != ns.ID().Ino {
			t.Errorf("in %d, want %s (%v, %v)", got, ns, err, ierr)
		}
		then()
		return errSent
	}
}

var errSent = errors.New("mine")

// An errand takes the caller's thread, also one that the caller has locked.
func TestAnErrandComesHome(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	for _, locked := range []bool{false, true} {
		over := make(chan struct{})
		go func() {
			defer close(over)
			if locked {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
			}
			before, err := inode()
			if err != nil {
				t.Error(err)
			}
			tid, own := 0, unix.Gettid()
			if err := netns.Errand(away(t, ns, &tid, func() {})); err != errSent {
				t.Errorf("error %v", err)
			}
			if locked && tid != own && own != os.Getpid() {
				t.Errorf("the errand ran on thread %d, its caller is locked to %d", tid, own)
			}
			func() {
				defer func() {
					p := recover()
					if v, ok := p.(*netns.PanicError); ok { // it was on the first thread
						p = v.Value
					}
					if p != errSent {
						t.Errorf("recovered %v", p)
					}
				}()
				netns.Errand(away(t, ns, &tid, func() { panic(errSent) }))
			}()
			if now, err := inode(); err != nil || now != before {
				t.Errorf("locked %v: in %d afterwards, before in %d (%v)", locked, now, before, err)
			}
		}()
		<-over
	}
}

// What a function has made of its thread inside Do is not looked into.
func TestAnErrandInsideDo(t *testing.T) {
	t.Parallel()
	ns, other := netnstest.New(t), netnstest.New(t)
	_, err := netns.Do(t.Context(), ns, ignoreCtx(func() (int, error) {
		tid := unix.Gettid()
		if err := netns.Errand(away(t, other, &tid, func() {})); err != errSent || tid == unix.Gettid() {
			t.Errorf("on thread %d, inside on %d: %v", tid, unix.Gettid(), err)
		}
		return 0, nil
	}))
	if err != nil {
		t.Error(err)
	}
}

// The process's first thread never leaves: it is what /proc/PID/ns/net shows.
func TestAnErrandOfTheFirstThread(t *testing.T) {
	if !inChild(t, nil) {
		return
	}
	ns := netnstest.New(t)
	testutil.OnFirstThread(t, func() {
		var tid int
		if err := netns.Errand(away(t, ns, &tid, func() {})); err != errSent || tid == os.Getpid() {
			t.Errorf("on thread %d: %v", tid, err)
		}
	})
}

// TestAnErrandThatCannotComeHome runs what spoils the descriptor of the way home.
func TestAnErrandThatCannotComeHome(t *testing.T) {
	if !inChild(t, nil) {
		return
	}
	ns := netnstest.New(t)
	testutil.OnFirstThread(t, func() {}) // from where an errand is not the caller's thread's
	before, err := inode()
	if err != nil {
		t.Fatal(err)
	}
	home, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(home)
	nowhere, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(nowhere)
	own := openAt(t, before)
	var tid int
	way := -1
	err = netns.Errand(away(t, ns, &tid, func() {
		for fd := range openAt(t, before) {
			if !own[fd] {
				way = fd
			}
		}
		if err := unix.Dup3(nowhere, way, unix.O_CLOEXEC); err != nil {
			t.Error(err)
		}
	}))
	if err != errSent {
		t.Errorf("error %v", err)
	}
	if now, err := inode(); err != nil || now != before || unix.Gettid() == tid {
		t.Fatalf("the caller goes on in %d, was in %d, on thread %d (%v)", now, before, unix.Gettid(), err)
	}
	if lost := strayThreads(t); len(lost) != 1 || lost[0] != fmt.Sprintf("%d net:[%d]", tid, ns.ID().Ino) {
		t.Errorf("away: %v, want thread %d", lost, tid)
	}
	if err := unix.Dup3(home, way, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	settle(t, func() string { // it tries again every second
		if lost := strayThreads(t); len(lost) > 0 {
			return fmt.Sprint("still away: ", lost)
		}
		return ""
	})
}

// openAt returns the descriptors of a network namespace.
func openAt(t *testing.T, ino uint64) map[int]bool {
	t.Helper()
	all := map[int]bool{}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if at, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && at == fmt.Sprintf("net:[%d]", ino) {
			fd, _ := strconv.Atoi(f.Name())
			all[fd] = true
		}
	}
	return all
}
