package store

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

func TestEnsureConfigKeepsTheFirst(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	first, second := state.DefaultConfig(), small()
	got, err := s.EnsureConfig(t.Context(), first)
	must(t, err)
	if !got.Equal(first) {
		t.Errorf("config %+v: want %+v", got, first)
	}
	before := revision(t, c, s.key("config"))
	got, err = s.EnsureConfig(t.Context(), second)
	must(t, err)
	if !got.Equal(first) {
		t.Errorf("config %+v: want the first, %+v", got, first)
	}
	if after := revision(t, c, s.key("config")); after != before {
		t.Errorf("it was written again: revision %d after %d", after, before)
	}
}

func TestEnsureConfigDoesNotReplaceGarbage(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	_, err := c.Put(t.Context(), s.key("config"), `{"version":99}`)
	must(t, err)
	_, err = s.EnsureConfig(t.Context(), small())
	mustBe(t, err, os.ErrInvalid)
	if !strings.Contains(err.Error(), s.key("config")) || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("error %v", err)
	}
	_, err = s.EnsureConfig(t.Context(), state.Config{})
	mustBe(t, err, os.ErrInvalid)
}

// joined is a node with claims.
func joined(t testing.TB, s *Store, id state.ID, name string) state.Node {
	t.Helper()
	p, err := s.Claim(t.Context(), id, small())
	must(t, err)
	n := nodeOf(id, name, p...)
	must(t, s.PutNode(t.Context(), n))
	return n
}

func TestPutNodeWritesOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	n := joined(t, s, idOf(1), "a")
	key := s.key(state.NodeKey(n.ID))
	before := revision(t, c, key)
	must(t, s.PutNode(t.Context(), n))
	if after := revision(t, c, key); after != before {
		t.Errorf("the same node was written again: revision %d after %d", after, before)
	}
	n.MTU = 9000
	must(t, s.PutNode(t.Context(), n))
	snapshot, err := s.Snapshot(t.Context())
	must(t, err)
	if got := snapshot.Nodes[n.ID]; !got.Equal(n) {
		t.Errorf("node %+v: want %+v", got, n)
	}
	n.MTU = 1
	mustBe(t, s.PutNode(t.Context(), n), os.ErrInvalid)
}

func TestPutNodeDoesNotSpeakForANewerAgent(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	n := joined(t, s, idOf(1), "a")
	newer := aliveOf(n.ID, n.Generation+1, "two")
	put(t, c, s, newer, 3600)
	n.MTU = 9000
	var taken *TakenError
	if err := s.PutNode(t.Context(), n); !errors.As(err, &taken) || taken.Other != newer {
		t.Errorf("error %v: want a TakenError of %+v", err, newer)
	}
	n.Generation++
	must(t, s.PutNode(t.Context(), n))
}

func TestMarkDeadOnce(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	n := joined(t, s, idOf(1), "a")
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	must(t, s.MarkDead(t.Context(), n.ID, since))
	must(t, s.MarkDead(t.Context(), n.ID, since.Add(time.Hour)))
	must(t, s.MarkDead(t.Context(), idOf(2), since)) // nobody knows it
	snapshot, err := s.Snapshot(t.Context())
	must(t, err)
	if len(snapshot.Dead) != 1 || !snapshot.Dead[n.ID].Since.Equal(since) {
		t.Errorf("dead %v: want %s since %v", snapshot.Dead, n.ID.Short(), since)
	}
}

func TestCollectLetsGoOfADeadNodeOnly(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	n, other := joined(t, s, idOf(1), "a"), joined(t, s, idOf(2), "b")
	dead := state.Dead{Version: 1, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	collect := func(d state.Dead, want bool) {
		t.Helper()
		done, err := s.Collect(t.Context(), n.ID, d)
		must(t, err)
		if done != want {
			t.Fatalf("collected: %v, want %v", done, want)
		}
	}
	collect(dead, false) // it is not dead
	must(t, s.MarkDead(t.Context(), n.ID, dead.Since))
	collect(state.Dead{Version: 1, Since: dead.Since.Add(-time.Hour)}, false) // it was back meanwhile
	lease := put(t, c, s, aliveOf(n.ID, 1, "one"), 3600)
	collect(dead, false) // its agent is alive
	_, err := c.Revoke(t.Context(), lease)
	must(t, err)
	collect(dead, true)
	collect(dead, false) // it is gone
	snapshot, err := s.Snapshot(t.Context())
	must(t, err)
	if len(snapshot.Nodes) != 1 || len(snapshot.Claims) != 2 || len(snapshot.Dead) != 0 || !snapshot.Nodes[other.ID].Equal(other) {
		t.Errorf("left: %+v: want node b and its claims", snapshot)
	}
	// What it had is free.
	wantClaim(t, s, idOf(5), small(), "10.0.1.0/24", "fd00:0:0:5::/64")
}

func TestForget(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	a, b, twin := joined(t, s, state.NewID(), "a"), joined(t, s, state.NewID(), "b"), joined(t, s, state.NewID(), "b")
	mustBe(t, s.Forget(t.Context(), "nobody"), os.ErrNotExist)
	mustBe(t, s.Forget(t.Context(), ""), os.ErrNotExist)
	err := s.Forget(t.Context(), "b")
	mustBe(t, err, os.ErrInvalid)
	if !strings.Contains(err.Error(), "2 nodes") {
		t.Errorf("error %v", err)
	}
	lease := put(t, c, s, aliveOf(a.ID, 1, "one"), 3600)
	if err := s.Forget(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), `alive, on machine "one"`) {
		t.Errorf("error %v: want that it is alive", err)
	}
	_, err = c.Revoke(t.Context(), lease)
	must(t, err)
	must(t, s.Forget(t.Context(), "a"))
	must(t, s.Forget(t.Context(), b.ID.String()))
	must(t, s.Forget(t.Context(), twin.ID.Short()))
	snapshot, err := s.Snapshot(t.Context())
	must(t, err)
	if len(snapshot.Nodes)+len(snapshot.Claims) != 0 {
		t.Errorf("left: %+v", snapshot)
	}
	// A node that has claims and says nothing of itself is known by its ID.
	id := state.NewID()
	_, err = s.Claim(t.Context(), id, small())
	must(t, err)
	mustBe(t, s.Forget(t.Context(), ""), os.ErrNotExist)
	must(t, s.Forget(t.Context(), id.String()))
}

func TestTheGenerationIsTheHighestThatIsKnown(t *testing.T) {
	t.Parallel()
	s, id := open(t, shared), idOf(5)
	expect := func(want uint64) {
		t.Helper()
		got, err := s.Generation(t.Context(), id)
		must(t, err)
		if got != want {
			t.Errorf("generation %d: want %d", got, want)
		}
	}
	expect(0)
	n := nodeOf(id, "a")
	n.Generation = 7 // a node without a claim counts, too
	key := s.key(state.NodeKey(id))
	client := raw(t, shared)
	_, err := client.Put(t.Context(), key, string(state.Encode(n)))
	must(t, err)
	expect(7)
	_, err = client.Put(t.Context(), s.key(state.AliveKey(id)), string(state.Encode(state.Alive{Version: state.Version, ID: id, Generation: 9})))
	must(t, err)
	expect(9)
	_, err = client.Put(t.Context(), key, "garbage")
	must(t, err)
	expect(9)
}

func TestWhatIsKnownOfANode(t *testing.T) {
	t.Parallel()
	s, id, cfg := open(t, shared), idOf(6), state.DefaultConfig()
	got, own, err := s.Known(t.Context(), id)
	must(t, err)
	if got != nil || own != nil {
		t.Errorf("of an empty store: %v, %v", got, own)
	}
	_, err = s.EnsureConfig(t.Context(), cfg)
	must(t, err)
	want, err := s.Claim(t.Context(), id, cfg)
	must(t, err)
	_, err = s.Claim(t.Context(), idOf(7), cfg)
	must(t, err)
	got, own, err = s.Known(t.Context(), id)
	must(t, err)
	slices.SortFunc(own, netip.Prefix.Compare)
	if got == nil || !got.Equal(cfg) || !slices.Equal(own, want) {
		t.Errorf("%v, %v: want %v, %v", got, own, cfg, want)
	}
	_, err = raw(t, shared).Put(t.Context(), s.key(state.ConfigKey), "garbage")
	must(t, err)
	if got, _, err = s.Known(t.Context(), id); got != nil || err != nil {
		t.Errorf("of garbage: %v, %v", got, err)
	}
}
