package netns_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// A thread that has left the process's file system context is known by the names
// of its namespaces, and does not come back.
func TestAThreadThatHasLeftIsKnownByName(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	type answer struct {
		where, want [3]string
		before      bool // whether one system call was enough, before the thread left
		after       bool
		tid         int
	}
	a, err := netns.Do(t.Context(), ns, func(context.Context) (a answer, err error) {
		a.tid = unix.Gettid()
		if _, a.before, err = netns.Here(); err != nil {
			return a, err
		}
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return a, err
		}
		for i, name := range [...]string{"net", "mnt", "user"} {
			if a.want[i], err = os.Readlink("/proc/thread-self/ns/" + name); err != nil {
				return a, err
			}
		}
		a.where, a.after, err = netns.Here()
		return a, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.after || a.where != a.want {
		t.Errorf("the thread that has left is at %q (known by one system call: %t), want %q", a.where, a.after, a.want)
	}
	if !a.before {
		t.Log("kcmp(2) is not to be had here: threads are known by name always")
	}
	settle(t, func() string {
		if _, err := os.Stat(fmt.Sprint("/proc/self/task/", a.tid)); err == nil {
			return "the thread has not ended"
		}
		return ""
	})
}
