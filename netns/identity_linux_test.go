package netns_test

import (
	"errors"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestCookieIsTheSockets(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	cookie, err := a.Cookie(t.Context())
	testutil.NeedKernel(t, 5, 14, "SO_NETNS_COOKIE", err)
	again, err := a.Cookie(t.Context())
	if err != nil || cookie == 0 || again != cookie {
		t.Errorf("%d, then %d, %v", cookie, again, err)
	}
	other, err := b.Cookie(t.Context())
	if err != nil || other == cookie {
		t.Errorf("another namespace has %d, too (%v)", other, err)
	}
	// What a socket says that was opened in it by other means.
	s, err := a.Socket(t.Context(), unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		got, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if err != nil || got != cookie {
			t.Errorf("a socket says %d, %v, want %d", got, err, cookie)
		}
	})
	a.Close()
	if _, err := a.Cookie(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestOwner(t *testing.T) {
	t.Parallel()
	plain := netnstest.New(t)
	var home unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &home); err != nil {
		t.Fatal(err)
	}
	o, err := plain.Owner()
	if err != nil || o.ID != (netns.ID{Dev: uint64(home.Dev), Ino: home.Ino}) {
		t.Errorf("%+v, %v, want inode %d", o, err, home.Ino)
	}
	ns, err := netns.NewInUserNS(t.Context(), netns.UserNS{})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	o, err = ns.Owner()
	if err != nil || o.ID.Ino != ownerOf(t, ns) || o.UID != uint32(os.Geteuid()) {
		t.Errorf("%+v, %v", o, err)
	}
	f, err := ns.OpenOwner()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWUSER {
		t.Errorf("OpenOwner opened a namespace of kind %#x, %v", kind, err)
	}
}

func TestOwnerOutside(t *testing.T) {
	t.Parallel()
	ns := mustCreate(t, "owned")
	defer ns.Delete(t.Context())
	runChild(t, "TestChildOwnerOutside", aUser())
}

func TestChildOwnerOutside(t *testing.T) {
	childOnly(t)
	ns, err := netns.Open(t.Context(), "owned")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if _, err := ns.Owner(); !errors.Is(err, os.ErrPermission) {
		t.Errorf("Owner: %v", err)
	}
	if _, err := ns.OpenOwner(); !errors.Is(err, os.ErrPermission) {
		t.Errorf("OpenOwner: %v", err)
	}
}
