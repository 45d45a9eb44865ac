package netns_test

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

var errSent = errors.New("mine")

// inNewNS calls then in a new namespace, and returns the thread that it ran on.
func inNewNS(t *testing.T, then func()) (tid int) {
	t.Helper()
	before, err := inode()
	if err != nil {
		t.Fatal(err)
	}
	err = netns.InNewNS(func() error {
		tid = unix.Gettid()
		if got, err := inode(); err != nil || got == before {
			t.Errorf("in %d, the caller is in %d (%v)", got, before, err)
		}
		then()
		return errSent
	})
	if err != errSent {
		t.Errorf("error %v", err)
	}
	if now, err := inode(); err != nil || now != before {
		t.Errorf("the caller goes on in %d, was in %d (%v)", now, before, err)
	}
	return tid
}

// The caller stays where it is, also when its goroutine is locked to a thread.
func TestNewNSLeavesItsCaller(t *testing.T) {
	if !inChild(t, nil) { // no other test's threads are elsewhere
		return
	}
	netnstest.Need(t)
	for _, locked := range []bool{false, true} {
		if locked {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		if own, tid := unix.Gettid(), inNewNS(t, func() {}); locked && tid == own {
			t.Errorf("it ran on thread %d, which its caller is locked to", tid)
		}
		func() {
			defer func() {
				if v, ok := recover().(*netns.PanicError); !ok || v.Value != errSent {
					t.Errorf("recovered %v", v)
				}
			}()
			inNewNS(t, func() { panic(errSent) })
		}()
		settle(t, func() string {
			if lost := strayThreads(t); len(lost) > 0 {
				return "still away: " + lost[0]
			}
			return ""
		})
	}
}

// What a function has made of its thread inside Do does not matter.
func TestNewNSInsideDo(t *testing.T) {
	t.Parallel()
	_, err := netns.Do(t.Context(), netnstest.New(t), ignoreCtx(func() (int, error) {
		inNewNS(t, func() {})
		return 0, nil
	}))
	if err != nil {
		t.Error(err)
	}
}

// The process's first thread never leaves: it is what /proc/PID/ns/net shows.
func TestNewNSOfTheFirstThread(t *testing.T) {
	if !inChild(t, nil) {
		return
	}
	netnstest.Need(t)
	testutil.OnFirstThread(t, func() {
		if tid := inNewNS(t, func() {}); tid == os.Getpid() {
			t.Error("it ran on the first thread")
		}
	})
}

// A thread that cannot come home ends: the test spoils the descriptor of its home.
func TestNewNSThreadThatCannotComeHomeEnds(t *testing.T) {
	if !inChild(t, nil) {
		return
	}
	netnstest.Need(t)
	before, err := inode()
	if err != nil {
		t.Fatal(err)
	}
	nowhere, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(nowhere)
	own := openAt(t, before)
	tid := inNewNS(t, func() {
		for fd := range openAt(t, before) {
			if own[fd] {
				continue
			}
			if err := unix.Dup3(nowhere, fd, unix.O_CLOEXEC); err != nil {
				t.Error(err)
			}
		}
	})
	ends(t, tid)
	if lost := strayThreads(t); len(lost) > 0 {
		t.Errorf("threads that are not at home: %v", lost)
	}
}
