package agent

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
)

// An agent that has ended leaves no goroutine, no descriptor and no socket. It is not parallel: it counts those of the process.
func TestAgentsLeaveNothing(t *testing.T) {
	l := labtest.New(t, lab.Options{Segments: []int{1}})
	etcd, err := l.StartStore(t.Context(), l.Hosts[0])
	if err != nil {
		t.Fatal(err)
	}
	h, err := l.AddHost(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var sockets []string
	round := func() {
		with := options(t, h, etcd)
		with.Metrics = "127.0.0.1:9469"
		own := options(t, h, etcd)
		own.Embed, own.Store = &store.EmbedConfig{Dir: filepath.Join(own.StateDir, "etcd"), NoSync: true}, &store.Config{}
		for _, o := range []Options{with, own} {
			ctx, cancel := context.WithCancel(t.Context())
			r := running{Options: o, t: t, end: make(chan error, 1)}
			go func() { r.end <- Run(ctx, o) }()
			r.until("ready", func(s status.State) bool { return s.Ready })
			cancel()
			if err := <-r.end; err != nil {
				t.Fatal(err)
			}
		}
		away := options(t, h, etcd)
		away.Store = &store.Config{Endpoints: []string{"http://127.0.0.1:9"}, Dial: h.NS.Dial}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := Run(ctx, away); err != nil {
			t.Fatal(err)
		}
		taken := options(t, h, etcd)
		taken.Metrics = "203.0.113.9:9469"
		if err := Run(t.Context(), taken); err == nil {
			t.Fatal("it listens on another machine's address")
		}
		sockets = append(sockets, with.Socket, own.Socket, away.Socket, taken.Socket)
	}
	round() // what a process has once
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	for range 5 { // 20 agents
		round()
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		g, d := runtime.NumGoroutine(), descriptors(t)
		if g <= goroutines && d <= fds {
			break
		}
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("after 20 agents there are %d goroutines and %d descriptors; after the first there were %d and %d\n%s",
				g, d, goroutines, fds, buf[:runtime.Stack(buf, true)])
		}
	}
	for _, socket := range sockets {
		if _, err := os.Stat(socket); !os.IsNotExist(err) {
			t.Errorf("%s: %v", socket, err)
		}
	}
}

// descriptors are those that the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
