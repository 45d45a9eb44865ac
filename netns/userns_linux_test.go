package netns_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// ownerOf returns the inode number of the user namespace that a network
// namespace belongs to, asked with the bare ioctl.
func ownerOf(t *testing.T, ns *netns.NS) (ino uint64) {
	t.Helper()
	err := ns.WithFd(func(fd int) error {
		user, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
		if err != nil {
			return err
		}
		defer unix.Close(user)
		var st unix.Stat_t
		err = unix.Fstat(user, &st)
		ino = st.Ino
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ino
}

func TestNewInUserNS(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ns, err := netns.NewInUserNS(t.Context(), netns.UserNS{})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	plain := netnstest.New(t)
	var home unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &home); err != nil {
		t.Fatal(err)
	}
	if owner := ownerOf(t, plain); owner != home.Ino {
		t.Errorf("New's belongs to user namespace %d, want this one, %d", owner, home.Ino)
	}
	owner := ownerOf(t, ns)
	if owner == home.Ino {
		t.Errorf("it belongs to the user namespace of the program")
	}
	if out := testutil.Run(t, ns, "ip", "-o", "link"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "LOOPBACK,UP") {
		t.Errorf("links: %s", out)
	}
	named, err := netns.Dir(t.TempDir()).Pin(t.Context(), ns, "owned")
	if err != nil {
		t.Fatal(err)
	}
	if err := named.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	// The process that made the user namespace would still be in it.
	processes, err := filepath.Glob("/proc/[0-9]*/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil && st.Ino == owner {
			t.Errorf("left in the user namespace: %s", p)
		}
	}
}

func TestNewInUserNSMaps(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	uid := uint32(os.Geteuid())
	// A second id is outside of what a normal user may map, and of what his own
	// user namespace has.
	maps := []netns.IDMap{{Inside: 0, Outside: uid, Count: 1}, {Inside: 1000, Outside: uid + 1, Count: 10}}
	ns, err := netns.NewInUserNS(t.Context(), netns.UserNS{UIDs: maps, GIDs: maps, SetGroups: true})
	b, rerr := os.ReadFile("/proc/self/uid_map")
	if whole := strings.Contains(string(b), "4294967295"); rerr == nil && !whole {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("in a user namespace with one user: %v", err)
		}
		ns.Close()
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
}

func TestNewInUserNSRefuses(t *testing.T) {
	t.Parallel()
	m := func(inside, outside, count uint32) netns.IDMap {
		return netns.IDMap{Inside: inside, Outside: outside, Count: count}
	}
	for _, tt := range []struct {
		u    netns.UserNS
		says string
	}{
		{netns.UserNS{UIDs: []netns.IDMap{m(0, 0, 0)}}, "UIDs[0] maps no ids"},
		{netns.UserNS{GIDs: []netns.IDMap{m(0, 0, 1), m(1<<32-1, 5, 1)}}, "GIDs[1] goes beyond"},
		{netns.UserNS{GIDs: []netns.IDMap{m(0, 1<<31, 1<<31)}}, "GIDs[0] goes beyond"},
		{netns.UserNS{UIDs: []netns.IDMap{m(0, 10, 10), m(9, 30, 1)}}, "UIDs[1] overlaps"},
		{netns.UserNS{UIDs: []netns.IDMap{m(0, 10, 10), m(20, 5, 6)}}, "UIDs[1] overlaps"},
		{netns.UserNS{UIDs: make([]netns.IDMap, 341)}, "UIDs has 341 ranges"},
	} {
		_, err := netns.NewInUserNS(t.Context(), tt.u)
		if !errors.Is(err, os.ErrInvalid) || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%+v: %v, want %q", tt.u, err, tt.says)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := netns.NewInUserNS(ctx, netns.UserNS{}); !errors.Is(err, context.Canceled) {
		t.Errorf("context that is done: %v", err)
	}
}

// TestKilledWhileMakingAUserNS kills a process that makes user namespaces, wherever
// it happens to be. The process that it makes them with must go with it: running
// on, it would be another instance of the program.
func TestKilledWhileMakingAUserNS(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for range rounds {
		killAtRandom(t, "TestChildMakesUserNSForever")
	}
	settle(t, func() string {
		dirs, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			cmdline, _ := os.ReadFile(dir + "/cmdline")
			if exe, _ := os.Readlink(dir + "/exe"); exe == self && string(cmdline) == "/proc/self/exe\x00" {
				return dir + " is left"
			}
		}
		return ""
	})
}

func TestChildMakesUserNSForever(t *testing.T) {
	childOnly(t)
	os.Stdout.WriteString("begins\n")
	for {
		ns, err := netns.NewInUserNS(t.Context(), netns.UserNS{})
		if err != nil {
			t.Fatal(err)
		}
		ns.Close()
	}
}
