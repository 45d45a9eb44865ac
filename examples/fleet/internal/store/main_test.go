package store

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// shared is a store that most tests use, each with a fleet of its own.
var shared *Embedded

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // most tests wait for leases most of the time
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "fleet")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		shared, err = StartEmbed(context.Background(), embedIn(dir))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer shared.Close()
		return m.Run()
	}())
}

// embedIn is the configuration of a store for a test, on a unix socket: it has the same address after a restart.
func embedIn(dir string) EmbedConfig {
	return EmbedConfig{Dir: filepath.Join(dir, "etcd"), Listen: []string{"unix://" + filepath.Join(dir, "sock")}, NoSync: true}
}

// member is a store of one test, which may stop, start again and lose its data.
type member struct {
	t   testing.TB
	dir string
	*Embedded
}

func newMember(t testing.TB) *member {
	t.Helper()
	dir, err := os.MkdirTemp("", "fleet") // its path is short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, dir: dir}
	t.Cleanup(func() { m.Close(); os.RemoveAll(dir) })
	m.start()
	return m
}

func (m *member) start() {
	m.t.Helper()
	e, err := StartEmbed(m.t.Context(), embedIn(m.dir))
	if err != nil {
		m.t.Fatal(err)
	}
	m.Embedded = e
}

// empty stops the store, deletes its data and starts it again.
func (m *member) empty() {
	m.t.Helper()
	m.Close()
	if err := os.RemoveAll(filepath.Join(m.dir, "etcd")); err != nil {
		m.t.Fatal(err)
	}
	m.start()
}

// open is a client of the test's fleet.
func open(t testing.TB, e *Embedded) *Store {
	t.Helper()
	return openWith(t, Config{Fleet: fleetOf(t), Endpoints: e.Endpoints()})
}

func openWith(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fleets are the names of the tests' fleets, by testing.TB. They differ when a test runs twice.
var (
	fleets sync.Map
	runs   atomic.Int64
)

func fleetOf(t testing.TB) string {
	name, ok := fleets.Load(t)
	if !ok {
		name, _ = fleets.LoadOrStore(t, fmt.Sprintf("fleet-%d", runs.Add(1)))
	}
	return name.(string)
}

// raw is etcd's own client, with which tests look and interfere.
func raw(t testing.TB, e *Embedded) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: e.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// revision is the store's, or that of a key's last change.
func revision(t testing.TB, c *clientv3.Client, key string) int64 {
	t.Helper()
	resp, err := c.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	return resp.Kvs[0].ModRevision
}

// idOf is an ID whose first choice of a prefix is known: n.
func idOf(n uint64) state.ID {
	var id state.ID
	binary.BigEndian.PutUint64(id[:8], n)
	id[15] = 1
	return id
}

// nodeOf is a node with an address and the prefixes.
func nodeOf(id state.ID, name string, prefixes ...netip.Prefix) state.Node {
	return state.Node{
		Version: state.Version, ID: id, Name: name, Endpoints: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		MTU: 1500, Prefixes: prefixes, Generation: 1,
	}
}

// items are the results of a Follow that runs beside the test.
type items struct {
	t testing.TB
	c chan item
}

type item struct {
	snapshot *state.Snapshot
	err      error
}

func follow(t testing.TB, s *Store) items {
	ctx, cancel := context.WithCancel(t.Context())
	f := items{t, make(chan item, 10000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for snapshot, err := range s.Follow(ctx) {
			f.c <- item{snapshot, err}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// until takes items until one is as wanted.
func (f items) until(what string, want func(item) bool) item {
	f.t.Helper()
	deadline := time.After(20 * time.Second)
	var last item
	for {
		select {
		case last = <-f.c:
			if want(last) {
				return last
			}
		case <-deadline:
			f.t.Fatalf("no item %s within 20s; the last: %+v, %v", what, last.snapshot, last.err)
		}
	}
}

// next is the next item, which must be a Snapshot.
func (f items) next() *state.Snapshot {
	f.t.Helper()
	i := f.until("at all", func(item) bool { return true })
	if i.err != nil {
		f.t.Fatal(i.err)
	}
	return i.snapshot
}

// poll waits until f says that it is so.
func poll(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !f() {
		if !sleep(ctx, 10*time.Millisecond) {
			t.Fatalf("not within 20s: %s", what)
		}
	}
}

func mustBe(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v: want %v", err, target)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
