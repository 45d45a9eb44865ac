package netns_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestList(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "names")
	f := netns.Dir(dir)
	if named, err := f.List(ctx); err != nil || len(named) != 0 {
		t.Errorf("a directory that is not there: %v, %v", named, err)
	}
	var want []netns.Entry
	for _, name := range []string{"b", "c", "a"} {
		ns, err := f.Create(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Delete(ctx)
		want = append(want, netns.Entry{Name: name, ID: ns.ID()})
	}
	slices.SortFunc(want, func(a, b netns.Entry) int { return int(a.Name[0]) - int(b.Name[0]) })
	// What is no namespace does not disturb.
	if err := errors.Join(
		os.WriteFile(dir+"/debris", nil, 0),
		os.Mkdir(dir+"/directory", 0o700),
		unix.Mkfifo(dir+"/fifo", 0o600),
		os.Symlink("/proc/self/ns/mnt", dir+"/otherkind"),
		os.Symlink("nowhere", dir+"/dangling"),
	); err != nil {
		t.Fatal(err)
	}
	if named, err := f.List(ctx); err != nil || !slices.Equal(named, want) {
		t.Errorf("%v, %v, want %v", named, err, want)
	}
	if _, err := netns.Dir("x").List(ctx); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a relative directory: %v", err)
	}
	if named, err := netns.List(ctx); err != nil || slices.Contains(named, want[0]) {
		t.Errorf("the directory of ip netns: %v, %v", named, err)
	}
}

// watching pulls events one by one; it fails the test on an error.
func watching(t *testing.T, f netns.Dir) (next func(kind netns.EventKind, name string, id netns.ID)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	pull, stop := iter.Pull2(f.Watch(ctx))
	t.Cleanup(func() { cancel(); stop() })
	return func(kind netns.EventKind, name string, id netns.ID) {
		t.Helper()
		e, err, ok := pull()
		want := netns.Event{Kind: kind, Entry: netns.Entry{Name: name, ID: id}}
		if !ok || err != nil || e != want {
			t.Fatalf("%v %v, %v; want %v %v", e.Kind, e.Entry, err, kind, want.Entry)
		}
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ctx := t.Context()
	f := netns.Dir(t.TempDir())
	first, err := f.Create(ctx, "first")
	if err != nil {
		t.Fatal(err)
	}
	next := watching(t, f)
	next(netns.EventPresent, "first", first.ID())
	next(netns.EventSynced, "", netns.ID{})
	second, err := f.Create(ctx, "second")
	if err != nil {
		t.Fatal(err)
	}
	next(netns.EventChanged, "second", second.ID())
	// A file alone is no namespace. What comes next would be its event.
	if err := os.WriteFile(string(f)+"/debris", nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Rename(ctx, "first", "early"); err != nil {
		t.Fatal(err)
	}
	next(netns.EventChanged, "early", first.ID()) // in this order, reported in one look or in two
	next(netns.EventDeleted, "first", first.ID())
	if err := second.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	next(netns.EventDeleted, "second", second.ID())
	first.Close()
	if err := f.Delete(ctx, "early"); err != nil {
		t.Fatal(err)
	}
	next(netns.EventDeleted, "early", first.ID())
}

// The directory may come after the watch, and again after it has gone.
func TestWatchOfADirectoryThatIsNotThere(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ctx, base := t.Context(), t.TempDir()
	f := netns.Dir(base + "/run/cni/netns")
	next := watching(t, f)
	next(netns.EventSynced, "", netns.ID{})
	for range 3 {
		ns, err := f.Create(ctx, "box")
		if err != nil {
			t.Fatal(err)
		}
		next(netns.EventChanged, "box", ns.ID())
		if err := ns.Delete(ctx); err != nil {
			t.Fatal(err)
		}
		next(netns.EventDeleted, "box", ns.ID())
		if err := os.RemoveAll(base + "/run"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchEnds(t *testing.T) {
	netnstest.Need(t)
	f, fds, goroutines := netns.Dir(t.TempDir()), descriptors(t), runtime.NumGoroutine()
	for range f.Watch(t.Context()) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for e, err := range f.Watch(ctx) {
		if e.Kind == netns.EventSynced {
			cancel()
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("cancelled: %v", last)
	}
	for _, err := range netns.Dir("x").Watch(t.Context()) {
		if !errors.Is(err, os.ErrInvalid) {
			t.Errorf("a relative directory: %v", err)
		}
	}
	if err := os.WriteFile(string(f)+"/file", nil, 0); err != nil {
		t.Fatal(err)
	}
	for _, err := range netns.Dir(string(f) + "/file").Watch(t.Context()) {
		if !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("a file: %v", err)
		}
	}
	if after := descriptors(t); after > fds {
		t.Errorf("%d descriptors before, %d after", fds, after)
	}
	settle(t, func() string {
		if runtime.NumGoroutine() > goroutines {
			return "goroutines are left"
		}
		return ""
	})
}

// The number of looks that a burst takes is open; in the end all is reported.
func TestWatchOfABurst(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	ctx := t.Context()
	f := netns.Dir(t.TempDir())
	ns := netnstest.New(t)
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	done := make(chan struct{})
	there := make(map[string]bool)
	for e, err := range f.Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case netns.EventSynced:
			go func() {
				defer close(done)
				for i := range 100 {
					name := names[i%len(names)]
					named, err := f.Pin(ctx, ns, name)
					if err == nil {
						err = named.Delete(ctx)
					}
					if err != nil {
						t.Error(err)
					}
				}
				for _, name := range names {
					if named, err := f.Pin(ctx, ns, name); err != nil {
						t.Error(err)
					} else {
						named.Close()
					}
				}
			}()
		case netns.EventChanged, netns.EventPresent:
			if there[e.Name] {
				t.Fatalf("%s was created twice", e.Name)
			}
			there[e.Name] = true
		case netns.EventDeleted:
			if !there[e.Name] {
				t.Fatalf("%s was deleted and not there", e.Name)
			}
			delete(there, e.Name)
		}
		if len(there) == len(names) { // until the end there is one at a time
			break
		}
	}
	<-done
	for _, name := range names {
		if err := f.Delete(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}
