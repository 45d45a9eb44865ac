package store

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

func TestFollowBeginsWithWhatIsThereAndGoesOnWithChanges(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	cfg := state.DefaultConfig()
	_, err := s.EnsureConfig(t.Context(), cfg)
	must(t, err)
	f := follow(t, s)
	if first := f.next(); first.Config == nil || !first.Config.Equal(cfg) {
		t.Fatalf("first snapshot has config %v", first.Config)
	}
	id := idOf(3)
	prefixes, err := s.Claim(t.Context(), id, cfg)
	must(t, err)
	// Both claims are of one transaction, so no Snapshot has one of them.
	if got := f.next(); len(got.Claims) != 2 {
		t.Fatalf("claims %v: want both at once", got.Claims)
	}
	n := nodeOf(id, "a", prefixes...)
	must(t, s.PutNode(t.Context(), n))
	if got := f.next(); !got.Nodes[id].Equal(n) {
		t.Fatalf("nodes %+v: want %+v", got.Nodes, n)
	}
	must(t, s.Forget(t.Context(), "a"))
	if got := f.next(); len(got.Nodes)+len(got.Claims) != 0 || got.Config == nil {
		t.Fatalf("after forget: %+v", got)
	}
}

func TestFollowGoesOnWhenTheStoreIsBackEmpty(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	s := open(t, m.Embedded)
	cfg := state.DefaultConfig()
	for i := range uint64(20) { // a revision that the emptied store does not reach
		_, err := s.Claim(t.Context(), idOf(i), cfg)
		must(t, err)
	}
	f := follow(t, s)
	old := f.next()
	if len(old.Claims) != 40 {
		t.Fatalf("%d claims: want 40", len(old.Claims))
	}
	m.empty()
	f.until("with an error", func(i item) bool { return i.err != nil })
	back := f.until("that is empty", func(i item) bool { return i.err == nil && len(i.snapshot.Claims) == 0 })
	if back.snapshot.Revision >= old.Revision {
		t.Fatalf("revision %d after %d: the store was to go back", back.snapshot.Revision, old.Revision)
	}
	_, err := s.Claim(t.Context(), idOf(1), cfg)
	must(t, err)
	f.until("with the new claim", func(i item) bool { return i.err == nil && len(i.snapshot.Claims) == 2 })
}

func TestFollowNamesWhyTheStoreIsAwayAndGoesOnWhenItComes(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	m.Close()
	s := open(t, m.Embedded)
	f := follow(t, s)
	away := f.until("with an error", func(i item) bool { return i.err != nil })
	mustBe(t, away.err, os.ErrNotExist) // the socket
	m.start()
	f.until("without an error", func(i item) bool { return i.err == nil })
	m.Close()
	f.until("with an error", func(i item) bool { return i.err != nil })
	m.start()
	f.until("without an error", func(i item) bool { return i.err == nil })
}

func TestFollowEndsWithItsContextAndWithTheStore(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for _, err := range s.Follow(ctx) {
		must(t, err)
		n++
		cancel()
	}
	if n != 1 {
		t.Fatalf("%d items: want 1", n)
	}
	for range s.Follow(t.Context()) {
		break
	}
	var last error
	for _, err := range s.Follow(t.Context()) {
		last = err
		s.Close()
	}
	mustBe(t, last, os.ErrClosed)
}

func TestFollowMakesManyChangesOneSnapshot(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	c := raw(t, shared)
	seen := 0
	for snapshot, err := range s.Follow(t.Context()) {
		must(t, err)
		if seen++; seen == 1 {
			for i := range 500 {
				_, err := c.Put(t.Context(), s.key(state.DeadKey(idOf(uint64(i)))), string(state.Encode(state.Dead{Version: 1, Since: soon})))
				must(t, err)
			}
		}
		if len(snapshot.Dead) == 500 {
			break
		}
	}
	// The stream may bring the last ones after the loop has looked, but not one by one.
	if seen > 10 {
		t.Fatalf("%d snapshots of 500 changes", seen)
	}
}

func TestFollowReadsPagesOfOneRevision(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	c := raw(t, shared)
	const n = 2*page + 1
	for i := range n {
		_, err := c.Put(t.Context(), s.key(state.DeadKey(idOf(uint64(i)))), string(state.Encode(state.Dead{Version: 1, Since: soon})))
		must(t, err)
	}
	if got := follow(t, s).next(); len(got.Dead) != n {
		t.Fatalf("%d keys: want %d", len(got.Dead), n)
	}
	snapshot, err := s.Snapshot(t.Context())
	must(t, err)
	if len(snapshot.Dead) != n {
		t.Fatalf("%d keys: want %d", len(snapshot.Dead), n)
	}
}

func TestFollowIgnoresAndNamesGarbage(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	c := raw(t, shared)
	f := follow(t, s)
	f.next()
	for _, key := range []string{"config", "claim/10.0.0.0-24", "node/x", "what"} {
		_, err := c.Put(t.Context(), s.key(key), "{{{")
		must(t, err)
	}
	got := f.until("with all four", func(i item) bool { return i.err == nil && len(i.snapshot.Skipped) == 4 }).snapshot
	for i, key := range []string{"claim/10.0.0.0-24", "config", "node/x", "what"} {
		if got.Skipped[i].Key != key || got.Skipped[i].Err == nil {
			t.Errorf("skipped %v: want %s", got.Skipped[i], key)
		}
	}
	if got.Config != nil || len(got.Claims)+len(got.Nodes) != 0 {
		t.Errorf("garbage is applied: %+v", got)
	}
}

func TestFollowSurvivesCompactionWhileAway(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	s := open(t, m.Embedded)
	f := follow(t, s)
	f.next()
	m.Close()
	f.until("with an error", func(i item) bool { return i.err != nil })
	m.start()
	c := raw(t, m.Embedded)
	var last int64
	for i := range 50 {
		resp, err := c.Put(t.Context(), s.key(state.DeadKey(idOf(uint64(i)))), `{"version":1,"since":"2026-01-02T03:04:05Z"}`)
		must(t, err)
		last = resp.Header.Revision
	}
	_, err := c.Compact(t.Context(), last)
	must(t, err)
	f.until("with all", func(i item) bool { return i.err == nil && len(i.snapshot.Dead) == 50 })
}

func TestCallsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	m.Close()
	s := open(t, m.Embedded)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := s.Snapshot(ctx)
	mustBe(t, err, context.DeadlineExceeded)
	mustBe(t, err, os.ErrNotExist)
	s.Close()
	_, err = s.Snapshot(t.Context())
	mustBe(t, err, os.ErrClosed)
	if errors.Is(err, context.Canceled) {
		t.Errorf("error %v says that the caller has cancelled", err)
	}
}

func TestOneOfTwoMembersIsAway(t *testing.T) {
	t.Parallel()
	cfg := Config{Fleet: fleetOf(t), Endpoints: append([]string{"unix:///nowhere/sock"}, shared.Endpoints()...)}
	s := openWith(t, cfg)
	follow(t, s).next()
	for range 20 { // whichever member is the next
		_, err := s.Snapshot(t.Context())
		must(t, err)
	}
}

// The connections are those of the caller: what cuts them cuts the Store.
func TestDialIsUsedForAllConnections(t *testing.T) {
	t.Parallel()
	var cut atomic.Bool
	var conns sync.Map
	refused := errors.New("this host is cut off")
	s := openWith(t, Config{Fleet: fleetOf(t), Endpoints: shared.Endpoints(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if cut.Load() {
			return nil, refused
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			conns.Store(conn, nil)
		}
		return conn, err
	}})
	f := follow(t, s)
	f.next()
	cut.Store(true)
	conns.Range(func(conn, _ any) bool { conn.(net.Conn).Close(); return true })
	f.until("with the error of the dial", func(i item) bool { return errors.Is(i.err, refused) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := s.Snapshot(ctx)
	mustBe(t, err, refused)
	cut.Store(false)
	f.until("without an error", func(i item) bool { return i.err == nil })
}

// The revision alone does not tell that the store has another history: it may be higher than before.
func TestFollowOfAnotherHistoryWithAHigherRevision(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	var cut atomic.Bool
	s := openWith(t, Config{Fleet: fleetOf(t), Endpoints: m.Endpoints(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if cut.Load() {
			return nil, errors.New("cut off")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}})
	cfg := state.DefaultConfig()
	_, err := s.Claim(t.Context(), idOf(1), cfg)
	must(t, err)
	f := follow(t, s)
	old := f.next()
	cut.Store(true)
	m.empty()
	other := open(t, m.Embedded)
	for i := range uint64(20) {
		_, err := other.Claim(t.Context(), idOf(100+i), cfg)
		must(t, err)
	}
	cut.Store(false)
	got := f.until("of the new history", func(i item) bool { return i.err == nil }).snapshot
	if got.Revision <= old.Revision || len(got.Claims) != 40 {
		t.Fatalf("revision %d after %d, %d claims: want a higher one, and the 40 new claims alone", got.Revision, old.Revision, len(got.Claims))
	}
	_, err = other.Claim(t.Context(), idOf(1), cfg)
	must(t, err)
	f.until("with a change", func(i item) bool { return i.err == nil && len(i.snapshot.Claims) == 42 })
}
