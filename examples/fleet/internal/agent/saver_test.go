package agent

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// known is a snapshot of this node alone.
func known() *state.Snapshot {
	config, own := state.DefaultConfig(), netip.MustParsePrefix("10.100.1.0/24")
	n := state.Node{
		Version: state.Version, ID: self, Name: "a", MTU: 1500, Endpoints: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Prefixes: []netip.Prefix{own},
	}
	return &state.Snapshot{Config: &config, Nodes: map[state.ID]state.Node{self: n}, Claims: map[netip.Prefix]state.ID{own: self}}
}

func TestAnEmptyStoreDoesNotEmptyTheCache(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newSaver(dir, self, slog.New(slog.DiscardHandler))
	s.keep(known())
	s.keep(&state.Snapshot{Config: known().Config})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := loadCache(dir)
	if err != nil || got == nil || len(got.Nodes[self].Prefixes) != 1 {
		t.Errorf("the cache is %+v, %v; want the node with its prefix", got, err)
	}
}

func TestWhatCouldNotBeSavedIsSavedLater(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "later")
	failed := make(chan struct{}, 10)
	s := newSaver(dir, self, slog.New(slog.NewTextHandler(signal(failed), nil)))
	defer s.Close()
	s.keep(known())
	<-failed
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * saveAgain); ; time.Sleep(10 * time.Millisecond) {
		got, err := loadCache(dir)
		if err == nil && got != nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the cache is %v, %v", got, err)
		}
	}
}

// signal is a log whose lines are events.
type signal chan struct{}

func (s signal) Write(line []byte) (int, error) {
	s <- struct{}{}
	return len(line), nil
}
