package failures

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// key is a key of the fleet in the store.
func key(relative string) string { return state.Root("lab") + relative }

// snapshot is what the store has, and its youngest revision.
func (w *world) snapshot() (*state.Snapshot, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	resp, err := w.client.Get(ctx, state.Root("lab"), clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	youngest := int64(0)
	var pairs []state.Pair
	for _, kv := range resp.Kvs {
		youngest = max(youngest, kv.ModRevision)
		pairs = append(pairs, state.Pair{Key: strings.TrimPrefix(string(kv.Key), state.Root("lab")), Value: kv.Value})
	}
	return state.Decode(youngest, slices.Values(pairs)), nil
}

// settled waits until the store has each of the nodes, alive and as the process that runs now, and until each agent's kernel is in
// line with all of the store.
func (w *world) settled(nodes ...*node) *state.Snapshot {
	w.t.Helper()
	var s *state.Snapshot
	w.until(func() (err error) {
		if s, err = w.snapshot(); err != nil {
			return err
		}
		if s.Config == nil {
			return fmt.Errorf("the store has no config")
		}
		for _, n := range nodes {
			id := n.id()
			alive, known := s.Alive[id], s.Nodes[id]
			if alive.Pid != n.Pid() || known.Generation != alive.Generation || !slices.Equal(known.Prefixes, n.prefixes) {
				return fmt.Errorf("the store has for %s, which has %v and runs as %d: %+v, %+v", n.Name, n.prefixes, n.Pid(), known, alive)
			}
		}
		for _, n := range nodes {
			revision, err := n.metric("store_revision")
			if err != nil {
				return err
			}
			if int64(revision) < s.Revision {
				return fmt.Errorf("%s is at revision %v of %d", n.Name, revision, s.Revision)
			}
		}
		return nil
	})
	return s
}

// id is the node's identity.
func (n *node) id() state.ID {
	n.w.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, "identity.json"))
	n.w.must(err)
	_, rest, _ := bytes.Cut(text, []byte(`"id":"`))
	digits, _, _ := bytes.Cut(rest, []byte(`"`))
	id, err := state.ParseID(string(digits))
	n.w.must(err)
	return id
}

// same checks that the nodes have the prefixes that they had.
func (w *world) same(s *state.Snapshot, nodes ...*node) {
	w.t.Helper()
	for _, n := range nodes {
		if now := s.Nodes[n.id()].Prefixes; !slices.Equal(now, n.prefixes) {
			w.t.Errorf("%s has %v in the store, it had %v", n.Name, now, n.prefixes)
		}
	}
}

// put writes a key of the fleet, as somebody does by hand.
func (w *world) put(relative, value string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	_, err := w.client.Put(ctx, key(relative), value)
	w.must(err)
}

// delete deletes a key of the fleet, as somebody does by hand.
func (w *world) delete(relative string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	resp, err := w.client.Delete(ctx, key(relative))
	w.must(err)
	if resp.Deleted != 1 {
		w.t.Fatalf("there is no key %s", relative)
	}
}
