package nat

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// many are n ports, each a single one.
func many(n int, owner string) []Port {
	ports := make([]Port, n)
	for i := range ports {
		ports[i] = tcp(fmt.Sprintf("10.1.%d.%d:80", i>>8, i&255), "10.88.0.2:80", owner)
	}
	return ports
}

// Whatever goes wrong with a batch leaves the state as it was, and is said.
func TestAFailedChangeChangesNothing(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	held := []Port{tcp("0.0.0.0:70", "10.88.0.2:70", "held"), ranged(udp("10.1.1.1:100", "10.88.0.2:100", "held"), 199)}
	if err := gw.Publish(t.Context(), held...); err != nil {
		t.Fatal(err)
	}
	free := many(stress(1000, 10000, 10000), "new")
	middle := len(free) / 2
	with := func(p Port) []Port {
		ports := append([]Port(nil), free...)
		ports[middle] = p
		return ports
	}
	single, inRange := tcp("10.1.1.1:70", "10.88.0.3:70", "new"), udp("0.0.0.0:150", "10.88.0.3:150", "new")
	wider := ranged(udp("0.0.0.0:1", "10.88.0.3:1", "new"), 300)
	before := objects(t, ns)
	for name, x := range map[string]struct {
		do   func() error
		is   error
		says []string
	}{
		"a conflict in the middle": {func() error { return gw.Publish(t.Context(), with(single)...) },
			os.ErrExist, []string{single.String(), held[0].String(), `"held"`}},
		"a conflict with a range": {func() error { return gw.Publish(t.Context(), with(inRange)...) },
			os.ErrExist, []string{inRange.String(), held[1].String(), `"held"`}},
		"a range around a range": {func() error { return gw.Publish(t.Context(), with(wider)...) },
			os.ErrExist, []string{wider.String(), held[1].String()}},
		"a missing one in the middle": {func() error { return gw.Unpublish(t.Context(), append(held, free[0])...) },
			os.ErrNotExist, []string{free[0].String()}},
		"a part of a range": {func() error { return gw.Unpublish(t.Context(), ranged(held[1], 150)) },
			os.ErrNotExist, []string{"100-150"}},
		"another owner's": {func() error { return gw.Unpublish(t.Context(), held[0], tcp("0.0.0.0:71", "10.88.0.2:70", "x")) },
			os.ErrNotExist, []string{"0.0.0.0:71"}},
		"an unknown owner": {func() error { return gw.UnpublishOwner(t.Context(), "nobody") },
			os.ErrNotExist, []string{`"nobody"`}},
		"a partial Sync": {func() error {
			return gw.Sync(t.Context(), State{Ports: with(single), Owners: func(owner string) bool { return owner == "new" }})
		}, os.ErrExist, []string{single.String(), `"held"`}},
		"bad input in the middle": {func() error { return gw.Publish(t.Context(), with(Port{})...) },
			os.ErrInvalid, []string{"protocol"}},
	} {
		err := x.do()
		if !errors.Is(err, x.is) {
			t.Errorf("%s: %v, want %v", name, err, x.is)
		}
		for _, text := range x.says {
			if !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%s: %v does not say %s", name, err, text)
			}
		}
	}
	if after := objects(t, ns); !reflect.DeepEqual(after, before) {
		t.Errorf("now there is\n%s", listing(t, ns))
	}
	expectPorts(t, gw, held...)

	// The kernel's own refusal, of one element among many: the lookup before does
	// not see what a set holds under a key that another program has made a range.
	testutil.Run(t, ns, "nft", "add element inet boxwire rng4 { 10.9.0.0-10.9.0.9 . tcp . 1000-1100 : 10.88.0.9 }")
	before = objects(t, ns)
	if err := gw.Publish(t.Context(), ranged(tcp("10.9.0.5:1050", "10.88.0.3:1050", "new"), 1200)); err == nil {
		t.Error("the kernel takes a range that overlaps")
	} else if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "an element of rng4") {
		t.Error(err)
	}
	if after := objects(t, ns); !reflect.DeepEqual(after, before) {
		t.Errorf("now there is\n%s", listing(t, ns))
	}

	// Ten thousand elements whose table goes away.
	testutil.Run(t, ns, "nft", "delete table inet boxwire")
	if err := gw.Publish(t.Context(), free...); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("without a table: %v", err)
	}
	if gw.ports.Len() != 101 { // those of held
		t.Errorf("%d ports are reserved", gw.ports.Len())
	}
	if out := testutil.Run(t, ns, "nft", "list", "ruleset"); strings.TrimSpace(out) != "" {
		t.Errorf("now there is %s", out)
	}
}

func TestWithoutPermissionNothingChanges(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	p := tcp("0.0.0.0:80", "10.88.0.2:80", "web")
	if err := gw.Publish(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	before := objects(t, ns)
	calls := map[string]func() error{
		"Publish":        func() error { return gw.Publish(t.Context(), tcp("0.0.0.0:81", "10.88.0.2:80", "web")) },
		"Unpublish":      func() error { return gw.Unpublish(t.Context(), p) },
		"UnpublishOwner": func() error { return gw.UnpublishOwner(t.Context(), "web") },
		"Sync":           func() error { return gw.Sync(t.Context(), State{}) },
		"Delete":         func() error { return gw.Delete(t.Context()) },
		"ListPorts":      func() error { _, err := gw.ListPorts(t.Context()); return err },
	}
	errs := make(map[string]error)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends, without the capability
		if err := dropNetAdmin(); err != nil {
			t.Error(err)
			return
		}
		for name, call := range calls {
			errs[name] = call()
		}
	}()
	<-done
	for name, err := range errs {
		if !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := objects(t, ns); !reflect.DeepEqual(after, before) {
		t.Errorf("now there is\n%s", listing(t, ns))
	}
	expectTaken(t, ns, "127.0.0.1:81", false, false)
	expectTaken(t, ns, "127.0.0.1:80", true, false)
}

// dropNetAdmin takes CAP_NET_ADMIN from the calling thread.
func dropNetAdmin() error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&h, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	return unix.Capset(&h, &data[0])
}
