package netns_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestPoolGivesFreshNamespaces(t *testing.T) {
	t.Parallel()
	netnstest.Need(t)
	p, err := netns.NewPool(3)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	got := make([]*netns.NS, 20)
	var wg sync.WaitGroup
	for i := range got { // a burst: most of them cannot be ready
		wg.Go(func() {
			ns, err := p.Get(t.Context())
			if err != nil {
				t.Error(err)
			}
			got[i] = ns
		})
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, ns := range got {
			if ns != nil {
				ns.Close()
			}
		}
	})
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	seen := make(map[netns.ID]bool)
	for _, ns := range got {
		if ns == nil {
			t.FailNow()
		}
		if seen[ns.ID()] {
			t.Errorf("%v was handed out twice", ns)
		}
		seen[ns.ID()] = true
		if out := testutil.Run(t, ns, "ip", "-o", "link"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "LOOPBACK,UP") {
			t.Errorf("links: %s", out)
		}
	}
	if _, err := p.Get(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close twice: %v", err)
	}
}

// maker stands in for New: it makes handles that belong to no namespace, each
// when it is allowed to.
type maker struct {
	made  atomic.Int32
	allow chan error
}

func (m *maker) make(context.Context) (*netns.NS, error) {
	err := <-m.allow
	if err != nil {
		return nil, err
	}
	m.made.Add(1)
	return new(netns.NS), nil
}

// A Get that finds nothing ready makes its own: it does not wait for the one
// that is being made in the background.
func TestPoolGetDoesNotQueue(t *testing.T) {
	t.Parallel()
	slow := make(chan struct{})
	var calls atomic.Int32
	p, err := netns.NewPoolOf(1, func(ctx context.Context) (*netns.NS, error) {
		if calls.Add(1) == 1 {
			<-slow
		}
		return new(netns.NS), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for calls.Load() == 0 {
		runtime.Gosched() // until the background has begun
	}
	for range 5 {
		if _, err := p.Get(t.Context()); err != nil {
			t.Error(err)
		}
	}
	close(slow)
	p.Close()
}

// The number of namespaces ready is bounded, and grows back after each Get.
func TestPoolIsBounded(t *testing.T) {
	t.Parallel()
	m := &maker{allow: make(chan error)}
	p, err := netns.NewPoolOf(2, m.make)
	if err != nil {
		t.Fatal(err)
	}
	m.allow <- nil
	m.allow <- nil // full after this one: a third is not received
	for p.Ready() < 2 {
		runtime.Gosched()
	}
	select {
	case m.allow <- nil:
		t.Error("a third one was made")
	default:
	}
	if _, err := p.Get(t.Context()); err != nil {
		t.Error(err)
	}
	m.allow <- nil
	p.Close()
	if n := m.made.Load(); n != 3 {
		t.Errorf("%d were made, want 3", n)
	}
}

// Where none can be made, the background tries once for each Get and no more.
func TestPoolReportsWhatStandsInTheWay(t *testing.T) {
	t.Parallel()
	m := &maker{allow: make(chan error)}
	p, err := netns.NewPoolOf(2, m.make)
	if err != nil {
		t.Fatal(err)
	}
	m.allow <- os.ErrPermission // the background's
	got := make(chan error)
	go func() { _, err := p.Get(t.Context()); got <- err }()
	m.allow <- os.ErrPermission // Get's and the background's second try, in any order
	m.allow <- os.ErrPermission
	if err := <-got; !errors.Is(err, os.ErrPermission) {
		t.Errorf("Get: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Get(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Get with a context that is done: %v", err)
	}
	p.Close()
	if _, err := netns.NewPool(0); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("size 0: %v", err)
	}
}

func TestPoolLeavesNothingOpen(t *testing.T) {
	netnstest.Need(t)
	before := descriptors(t)
	for range 5 {
		p, err := netns.NewPool(4)
		if err != nil {
			t.Fatal(err)
		}
		ns, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
		ns.Close()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
