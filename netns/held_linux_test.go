package netns_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// A namespace lives until its handle is closed, though the program has forgotten the
// handle: the garbage collector closes none, however it was got.
func TestAForgottenHandleStaysOpen(t *testing.T) {
	if !inChild(t, nil) { // another test might close what looks the same
		return
	}
	netnstest.Need(t)
	for name, get := range map[string]func(context.Context) (*netns.NS, error){
		"New": netns.New,
		"a Pool": func(ctx context.Context) (*netns.NS, error) {
			p, err := netns.NewPool(1)
			if err != nil {
				return nil, err
			}
			defer p.Close()
			return p.Get(ctx)
		},
		"OpenFd": func(ctx context.Context) (other *netns.NS, err error) {
			ns, err := netns.New(ctx)
			if err != nil {
				return nil, err
			}
			defer ns.Close()
			return other, ns.WithFd(func(fd int) error { other, err = netns.OpenFd(fd); return err })
		},
		"Adopt": func(ctx context.Context) (other *netns.NS, err error) {
			ns, err := netns.New(ctx)
			if err != nil {
				return nil, err
			}
			defer ns.Close()
			return other, ns.WithFd(func(fd int) error {
				dup, err := unix.Dup(fd)
				if err == nil {
					other, err = netns.Adopt(dup)
				}
				return err
			})
		},
		"NewInUserNS": func(ctx context.Context) (*netns.NS, error) { return netns.NewInUserNS(ctx, netns.UserNS{}) },
	} {
		ino := forget(t, get)
		collect()
		if len(openAt(t, ino)) == 0 {
			t.Errorf("%s: the namespace was closed", name)
		}
		for _, ns := range netns.Held(ino) {
			ns.Close()
		}
		if n := len(openAt(t, ino)); n > 0 || len(netns.Held(ino)) > 0 {
			t.Errorf("%s: closed, it has %d descriptors open", name, n)
		}
	}
}

// forget gets a handle and drops it.
func forget(t *testing.T, get func(context.Context) (*netns.NS, error)) uint64 {
	ns, err := get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ns.ID().Ino
}

// collect returns when the garbage collector has closed a file that nothing refers to.
func collect() {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	defer w.Close()
	fd := int(r.Fd())
	r = nil
	for range 100 {
		runtime.GC()
		if _, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
			return
		}
		runtime.Gosched()
	}
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
