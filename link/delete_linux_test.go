package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestDeleteAllOfSeveralNamespaces(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	var links []Link
	for i := range 12 {
		links = append(links, mustCreate(t, host, Spec{Name: fmt.Sprintf("a%d", i), Kind: Veth{Peer: Spec{NS: web, Name: fmt.Sprintf("b%d", i)}}}))
	}
	keep := mustCreate(t, host, Spec{Name: "keep", Group: 5, Kind: Bridge{}})
	links = append(links, mustCreate(t, web, Spec{Name: "br", Kind: Bridge{}}), mustCreate(t, web, Spec{Name: "br2", Kind: Bridge{}}))
	// Both ends of one pair, one twice, and one that is gone.
	other, err := Get(ctx, web, "b3")
	if err != nil {
		t.Fatal(err)
	}
	gone := mustCreate(t, host, Spec{Name: "gone", Kind: Bridge{}})
	if err := gone.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	err = DeleteAll(ctx, append(links, links[0], gone, other)...)
	wantErr(t, err, os.ErrNotExist, "link.DeleteAll link gone", "gone already")
	onlyThese(t, host, "lo", "keep")
	onlyLo(t, web)
	if w := ipFull(t, host, "keep"); w.Group != "5" {
		t.Errorf("ip shows %+v", w)
	}
	if err := DeleteAll(ctx, keep); err != nil {
		t.Error(err)
	}
	if err := DeleteAll(ctx); err != nil {
		t.Error(err)
	}
	wantErr(t, DeleteAll(ctx, Link{}), os.ErrInvalid)
	onlyLo(t, host, web)
}

func TestDeleteAllOrNone(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	var links []Link
	for i := range 4 {
		links = append(links, mustCreate(t, ns, Spec{Name: fmt.Sprintf("br%d", i), Group: uint32(i), Kind: Bridge{}}))
	}
	lo, err := Get(ctx, ns, "lo")
	if err != nil {
		t.Fatal(err)
	}
	before := stateOf(t, ns)
	wantErr(t, DeleteAll(ctx, append(links, lo)...), os.ErrInvalid, "link lo", "cannot be deleted")
	wantSame(t, "something was changed", before, stateOf(t, ns))

	// What the kernel refuses, at the deletion itself: the links have their
	// groups back.
	conn, err := route(ns)
	if err != nil {
		t.Fatal(err)
	}
	all, err := List(ctx, ns, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if err := deleteLinks(ctx, conn, all, 77); err == nil {
		t.Error("lo was deleted")
	}
	wantSame(t, "groups were changed", before, stateOf(t, ns))
	done, cancel := context.WithCancel(ctx)
	cancel()
	if err := DeleteAll(done, links...); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Calls of one handle do not wait for what the kernel does after a link is gone.
func TestDeleteOnOneHandleAtOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	var links []Link
	for i := range 8 {
		links = append(links, mustCreate(t, host, Spec{Name: fmt.Sprintf("a%d", i), Up: true, Kind: Veth{Peer: Spec{NS: web, Name: fmt.Sprintf("b%d", i), Up: true}}}))
	}
	var wg sync.WaitGroup
	for i, l := range links {
		wg.Go(func() {
			err := l.Delete(ctx)
			if i%2 == 1 {
				err = DeleteAll(ctx, l)
			}
			if i%2 == 1 && !errors.Is(err, os.ErrNotExist) || i%2 == 0 && err != nil {
				t.Errorf("%s: %v", l.Name, err)
			}
		})
		wg.Go(func() {
			if err := l.WaitGone(ctx); err != nil {
				t.Errorf("%s: %v", l.Name, err)
			}
		})
	}
	wg.Wait()
	onlyLo(t, host, web)
}

// A process without a descriptor left deletes by the handle's connection. The test is not parallel:
// the limit is the process's.
func TestDeleteWithoutADescriptorLeft(t *testing.T) {
	ctx := context.Background()
	ns := netnstest.New(t)
	one := mustCreate(t, ns, Spec{Name: "one", Kind: Bridge{}})
	two := mustCreate(t, ns, Spec{Name: "two", Kind: Bridge{}})
	three := mustCreate(t, ns, Spec{Name: "three", Kind: Bridge{}})
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := one.Delete(ctx)
	all := DeleteAll(ctx, two, three)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err != nil || all != nil {
		t.Errorf("%v; %v", err, all)
	}
	onlyLo(t, ns)
}

// 300 veths together, one by one, and together by bare system calls.
func BenchmarkDelete300Veths(b *testing.B) {
	ctx := context.Background()
	make300 := func(b *testing.B) []Link {
		ns := netnstest.New(b)
		links := make([]Link, 300)
		for i := range links {
			links[i] = mustCreate(b, ns, Spec{Name: fmt.Sprintf("a%d", i), Kind: Veth{Peer: Spec{Name: fmt.Sprintf("b%d", i)}}})
		}
		return links
	}
	b.Run("DeleteAll", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			links := make300(b)
			b.StartTimer()
			if err := DeleteAll(ctx, links...); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("one by one", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			links := make300(b)
			b.StartTimer()
			for _, l := range links {
				if err := l.Delete(ctx); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
