package testutil

import (
	"cmp"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// A Fault makes one step of a call fail.
type Fault int

// The values of Fault.
const (
	Unknown  Fault = iota // the kernel does not know the request (EOPNOTSUPP)
	CutShort              // the request lacks its end (EINVAL)
	Canceled              // the context ends
	faults
)

func (f Fault) String() string {
	return [...]string{"unknown request", "request cut short", "context ends"}[f]
}

// A World is what a call that is to fail works in.
type World struct {
	Spaces []*netns.NS
	Call   func(context.Context) error
}

// settleTime bounds the wait for what the kernel does by itself after a change: it
// processes carriers that come or go once a second, a hundred links at a time. The wait
// ends as soon as all is right.
const settleTime = 10 * time.Second

// Fails makes the call, which has to fail of itself, and fails the test where it leaves
// another state than there was. It returns the call's error.
func (w *World) Fails(t *testing.T) error {
	t.Helper()
	before := w.settled(t)
	err := w.Call(t.Context())
	if err == nil {
		t.Fatal("the call does not fail")
	}
	if changed := w.changed(t, before); changed != "" {
		t.Errorf("a call that failed has changed the state: %v\n%s", err, changed)
	}
	return err
}

// settled returns the state once it is the same twice.
func (w *World) settled(t *testing.T) string {
	t.Helper()
	last := State(t, w.Spaces...)
	for end := time.Now().Add(settleTime); ; time.Sleep(10 * time.Millisecond) {
		now := State(t, w.Spaces...)
		if now == last || time.Now().After(end) {
			return now
		}
		last = now
	}
}

// changed returns the lines of the state that are not as before.
func (w *World) changed(t *testing.T, before string) string {
	t.Helper()
	for end := time.Now().Add(settleTime); ; time.Sleep(10 * time.Millisecond) {
		begun := time.Now() // to read the state may take long itself
		after := State(t, w.Spaces...)
		if after == before {
			return ""
		}
		if begun.Before(end) {
			continue
		}
		var b strings.Builder
		for sign, texts := range map[string][2]string{"-": {before, after}, "+": {after, before}} {
			for line := range strings.Lines(texts[0]) {
				if !strings.Contains(texts[1], line) {
					b.WriteString(sign + line)
				}
			}
		}
		return cmp.Or(b.String(), "the same lines in another order")
	}
}

// Undone runs a call again and again with a fault at its first, second, third step
// and so on, until it has no more steps, and fails the test where a run that failed
// leaves another state than there was. A step is a request to the kernel, or a look
// at the context. Make makes a world, and another after a run that succeeded in
// spite of the fault. Under testing.Short it takes the first two
// steps and one of eight after them, with one kind of fault for each call.
func Undone(t *testing.T, make func(t *testing.T) World) {
	t.Helper()
	for f := range faults {
		// CutShort is much like Unknown.
		if testing.Short() && (f == CutShort || (f == Unknown) != (len(t.Name())%2 == 0)) {
			continue
		}
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			undone(t, f, make)
		})
	}
}

// undone is [Undone] with one kind of fault.
func undone(t *testing.T, f Fault, make func(t *testing.T) World) {
	t.Helper()
	next := func(n int) int {
		if testing.Short() && n >= 2 {
			return n + 8
		}
		return n + 1
	}
	w, failed := make(t), 0
	before := w.settled(t)
	for n := 1; ; n = next(n) {
		hit, err := w.run(t, f, n)
		if err == nil && !hit {
			break
		}
		if err == nil { // the fault was no harm
			w = make(t)
			before = w.settled(t)
			continue
		}
		if !hit {
			t.Fatalf("without a fault: %v", err)
		}
		failed++
		if changed := w.changed(t, before); changed != "" {
			t.Fatalf("a call with a fault at step %d has changed the state: %v\n%s", n, err, changed)
		}
	}
	if failed == 0 {
		t.Error("no fault made the call fail")
	}
}

// run makes the call with a fault at step n.
func (w *World) run(t *testing.T, f Fault, n int) (hit bool, err error) {
	t.Helper()
	if f == Canceled {
		ctx := &countedContext{Context: context.Background()}
		ctx.left.Store(int64(n - 1))
		err := w.Call(ctx)
		return ctx.left.Load() < 0, err
	}
	left := new(atomic.Int64)
	left.Store(int64(n))
	w.fault(t, func(r nl.Request) nl.Request {
		switch {
		case left.Add(-1) != 0:
		case f == Unknown:
			r.Type = unix.RTM_MAX + 1000
		default:
			r.Body = r.Body[:min(len(r.Body), 4)]
		}
		return r
	})
	defer w.fault(t, nil)
	err = w.Call(context.Background())
	return left.Load() <= 0, err
}

func (w *World) fault(t *testing.T, f func(nl.Request) nl.Request) {
	t.Helper()
	for _, ns := range w.Spaces {
		conn, err := nsconn.Shared(ns, unix.NETLINK_ROUTE)
		if err != nil {
			t.Fatal(err)
		}
		conn.Fault(f)
	}
}

// countedContext is canceled once Err has been asked for so many times.
type countedContext struct {
	context.Context
	left atomic.Int64
}

func (c *countedContext) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}
