package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestTheIdentityStays(t *testing.T) {
	dir := t.TempDir()
	first, err := loadIdentity(dir, "lab")
	if err != nil || first == (state.ID{}) {
		t.Fatal(first, err)
	}
	if again, err := loadIdentity(dir, "lab"); err != nil || again != first {
		t.Errorf("%v, %v; want %v", again, err, first)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

func TestABadIdentityIsRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"version":1,"fleet":"other","id":"` + state.NewID().String() + `"}`, `of the fleet "other"`},
		{`{"version":2,"fleet":"lab","id":"` + state.NewID().String() + `"}`, "version 2"},
		{`{"version":1,"fleet":"lab","id":"00"}`, "damaged"},
		{`{"version":1,"fleet":"lab"}`, "no id"},
		{"", "damaged"},
		{"\x00\x00", "damaged"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, identityFile)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := loadIdentity(dir, "lab"); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, %v; want %q and the path", c.text, id, err, c.want)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != c.text {
			t.Errorf("%q: the file was changed: %q, %v", c.text, text, err)
		}
	}
	if _, err := loadIdentity(filepath.Join(t.TempDir(), "missing"), "lab"); err == nil {
		t.Error("an identity in a directory that does not exist")
	}
}

func TestTheCacheIsWhatWasKnown(t *testing.T) {
	dir := t.TempDir()
	if s, err := loadCache(dir); s != nil || err != nil {
		t.Errorf("without a file: %v, %v", s, err)
	}
	config := state.DefaultConfig()
	own := netip.MustParsePrefix("10.100.1.0/24")
	was := &state.Snapshot{
		Config: &config,
		Nodes: map[state.ID]state.Node{self: {
			Version: 1, ID: self, Name: "a", Endpoints: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, MTU: 1500, Prefixes: []netip.Prefix{own},
		}},
		Claims: map[netip.Prefix]state.ID{own: self, peers: peer},
		Alive:  map[state.ID]state.Alive{self: {Version: 1, ID: self}},
	}
	if err := saveCache(dir, was); err != nil {
		t.Fatal(err)
	}
	s, err := loadCache(dir)
	if err != nil || len(s.Skipped) != 0 {
		t.Fatal(s, err)
	}
	if !s.Nodes[self].Equal(was.Nodes[self]) || s.Claims[peers] != peer || !s.Config.Equal(config) || len(s.Alive) != 0 {
		t.Errorf("%+v", s)
	}
	if err := os.WriteFile(filepath.Join(dir, cacheFile), []byte(`{"version":1,"pairs":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := loadCache(dir); s != nil || err == nil || !strings.Contains(err.Error(), cacheFile) {
		t.Errorf("damaged: %v, %v", s, err)
	}
}

func TestALinkHasOneAgent(t *testing.T) {
	t.Parallel()
	a, b := netnstest.New(t), netnstest.New(t)
	first, err := takeLock(t.Context(), a, "fl0", 201)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(t.Context(), a, "fl0", 201); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second agent: %v", err)
	}
	if _, err := takeLock(t.Context(), a, "fl1", 201); err == nil || !strings.Contains(err.Error(), "protocol 201") {
		t.Errorf("a second agent with another link: %v", err)
	}
	if other, err := takeLock(t.Context(), b, "fl0", 201); err != nil {
		t.Errorf("in another namespace: %v", err)
	} else {
		other.Close()
	}
	first.Close()
	if again, err := takeLock(t.Context(), a, "fl0", 201); err != nil {
		t.Errorf("after the first has ended: %v", err)
	} else {
		again.Close()
	}
}
