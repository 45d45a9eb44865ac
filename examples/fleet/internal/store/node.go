package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// EnsureConfig gives the Config of the fleet. The store's is what counts. If it has none, it gets want.
func (s *Store) EnsureConfig(ctx context.Context, want state.Config) (state.Config, error) {
	if err := want.Validate(); err != nil {
		return state.Config{}, fmt.Errorf("config of the fleet: %w", err)
	}
	got := want
	key := s.key(state.ConfigKey)
	err := s.call(ctx, "config of the fleet", func(ctx context.Context) error {
		resp, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, string(state.Encode(want)))).
			Else(clientv3.OpGet(key)).Commit()
		if err != nil || resp.Succeeded {
			return err
		}
		snapshot := state.Decode(0, s.pairs(resp.Responses[0].GetResponseRange().Kvs))
		for _, skipped := range snapshot.Skipped {
			return invalid("%s: %w", key, skipped.Err)
		}
		got = *snapshot.Config
		return nil
	})
	if err != nil {
		return state.Config{}, err
	}
	return got, nil
}

// PutNode makes what the store says of a node what is given. It writes only if that differs. The error is a *TakenError if an
// agent of a higher generation is alive: it is that one that speaks for the node.
func (s *Store) PutNode(ctx context.Context, n state.Node) error {
	if err := n.Validate(); err != nil {
		return fmt.Errorf("node %s: %w", n.Name, err)
	}
	key, alive, value := s.key(state.NodeKey(n.ID)), s.key(state.AliveKey(n.ID)), state.Encode(n)
	return s.call(ctx, "node "+n.Name, func(ctx context.Context) error {
		for {
			old, err := s.get(ctx, key, alive)
			if err != nil {
				return err
			}
			if other := readAlive(old[1]); other != nil && other.Generation > n.Generation {
				return &TakenError{*other}
			}
			if old[0] != nil && bytes.Equal(old[0].Value, value) {
				return nil
			}
			done, err := s.write(ctx, []clientv3.Cmp{same(key, old[0]), same(alive, old[1])}, clientv3.OpPut(key, string(value)))
			if done || err != nil {
				return err
			}
		}
	})
}

// Known gives the fleet's Config, nil if the store has none that is valid, and the prefixes that a node has claimed. It changes
// nothing.
func (s *Store) Known(ctx context.Context, id state.ID) (cfg *state.Config, own []netip.Prefix, err error) {
	c := claimer{Store: s, id: id}
	err = s.call(ctx, "config of the fleet", func(ctx context.Context) error {
		kvs, err := s.get(ctx, s.key(state.ConfigKey))
		if err != nil {
			return err
		}
		cfg = nil
		if kvs[0] != nil {
			cfg = state.Decode(0, s.pairs(kvs)).Config
		}
		return c.readClaims(ctx)
	})
	return cfg, c.mine, err
}

// Generation is the highest one that the store knows of a node, 0 if it knows none.
func (s *Store) Generation(ctx context.Context, id state.ID) (uint64, error) {
	var highest uint64
	err := s.call(ctx, "generation of node "+id.Short(), func(ctx context.Context) error {
		kvs, err := s.get(ctx, s.key(state.NodeKey(id)), s.key(state.AliveKey(id)))
		if err != nil {
			return err
		}
		var n state.Node
		if kvs[0] != nil && json.Unmarshal(kvs[0].Value, &n) == nil { // one that is damaged counts for nothing
			highest = n.Generation
		}
		if a := readAlive(kvs[1]); a != nil {
			highest = max(highest, a.Generation)
		}
		return nil
	})
	return highest, err
}

// MarkDead notes since when a node is dead. It does nothing if the node's agent is alive, if it is noted already, or if the store
// does not know the node.
func (s *Store) MarkDead(ctx context.Context, id state.ID, since time.Time) error {
	key := s.key(state.DeadKey(id))
	value := state.Encode(state.Dead{Version: state.Version, Since: since.UTC()})
	return s.call(ctx, "mark node "+id.Short()+" dead", func(ctx context.Context) error {
		old, err := s.get(ctx, key, s.key(state.AliveKey(id)), s.key(state.NodeKey(id)))
		if err != nil || old[0] != nil || old[1] != nil || old[2] == nil {
			return err
		}
		_, err = s.write(ctx, []clientv3.Cmp{
			same(key, nil), same(s.key(state.AliveKey(id)), nil), same(s.key(state.NodeKey(id)), old[2]),
		}, clientv3.OpPut(key, string(value)))
		return err
	})
}

// Collect lets go of a node that is dead: its claims, what it says of itself, and the note that it is dead, in one transaction. It
// does nothing, and reports false, if the agent is alive or if the store's note is not the one given.
func (s *Store) Collect(ctx context.Context, id state.ID, dead state.Dead) (bool, error) {
	var done bool
	err := s.call(ctx, "let go of node "+id.Short(), func(ctx context.Context) error {
		kvs, revision, err := s.read(ctx, s.root)
		if err != nil {
			return err
		}
		snapshot := state.Decode(revision, s.pairs(kvs))
		if stored, ok := snapshot.Dead[id]; !ok || !stored.Since.Equal(dead.Since) {
			return nil
		}
		done, err = s.letGo(ctx, snapshot, kvs, id)
		return err
	})
	return done, err
}

// Forget lets go of a node at once. The node is given by its name, its ID or the beginning of its ID. The error is os.ErrNotExist if
// there is none, and says where the agent runs if it is alive.
func (s *Store) Forget(ctx context.Context, node string) error {
	return s.call(ctx, "forget node "+node, func(ctx context.Context) error {
		kvs, revision, err := s.read(ctx, s.root)
		if err != nil {
			return err
		}
		snapshot := state.Decode(revision, s.pairs(kvs))
		id, err := find(snapshot, node)
		if err != nil {
			return err
		}
		if s.aliveIn(kvs, id) {
			if a, ok := snapshot.Alive[id]; ok {
				return fmt.Errorf("its agent is alive, on machine %q as process %d: stop it first", a.Machine, a.Pid)
			}
			return errors.New("its agent is alive: stop it first")
		}
		done, err := s.letGo(ctx, snapshot, kvs, id)
		if err == nil && !done {
			err = errors.New("it changed meanwhile: is its agent coming back?")
		}
		return err
	})
}

// find is the node that people call so: by its name or its ID, or else by the beginning of its ID.
func find(s *state.Snapshot, node string) (state.ID, error) {
	var exact, begin []state.ID
	look := func(id state.ID, name string) {
		switch text := id.String(); {
		case text == node || name == node && name != "":
			exact = append(exact, id)
		case len(node) >= 4 && strings.HasPrefix(text, node):
			begin = append(begin, id)
		}
	}
	for id, n := range s.Nodes {
		look(id, n.Name)
	}
	nameless := map[state.ID]bool{} // they have claims, and say nothing of themselves
	for _, id := range s.Claims {
		if _, ok := s.Nodes[id]; !ok && !nameless[id] {
			nameless[id] = true
			look(id, "")
		}
	}
	found := exact
	if len(found) == 0 {
		found = begin
	}
	switch len(found) {
	case 0:
		return state.ID{}, fmt.Errorf("there is no such node: %w", os.ErrNotExist)
	case 1:
		return found[0], nil
	}
	return state.ID{}, invalid("%d nodes are called so: give an id", len(found))
}

func (s *Store) aliveIn(kvs []*mvccpb.KeyValue, id state.ID) bool {
	key := s.key(state.AliveKey(id))
	for _, kv := range kvs {
		if string(kv.Key) == key {
			return true
		}
	}
	return false
}

// letGo deletes all keys of a node that are in the Snapshot, if none of them has changed and the agent is not alive.
func (s *Store) letGo(ctx context.Context, snapshot *state.Snapshot, kvs []*mvccpb.KeyValue, id state.ID) (bool, error) {
	keys := map[string]bool{s.key(state.NodeKey(id)): true, s.key(state.DeadKey(id)): true}
	for _, p := range sortedClaims(snapshot, id) {
		keys[s.key(state.ClaimKey(p))] = true
	}
	guards := []clientv3.Cmp{same(s.key(state.AliveKey(id)), nil)}
	var deletes []clientv3.Op
	for _, kv := range kvs {
		if key := string(kv.Key); keys[key] {
			guards = append(guards, same(key, kv))
			deletes = append(deletes, clientv3.OpDelete(key))
		}
	}
	return s.write(ctx, guards, deletes...)
}

// get reads keys at one revision. A key that is not there is nil.
func (s *Store) get(ctx context.Context, keys ...string) ([]*mvccpb.KeyValue, error) {
	ops := make([]clientv3.Op, len(keys))
	for i, key := range keys {
		ops[i] = clientv3.OpGet(key)
	}
	resp, err := s.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, err
	}
	values := make([]*mvccpb.KeyValue, len(keys))
	for i, r := range resp.Responses {
		if kvs := r.GetResponseRange().GetKvs(); len(kvs) > 0 {
			values[i] = kvs[0]
		}
	}
	return values, nil
}

// same is the guard that a key is as it was read.
func same(key string, kv *mvccpb.KeyValue) clientv3.Cmp {
	if kv == nil {
		return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	}
	return clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision)
}

// write does a transaction. It is not done if a guard does not hold.
func (s *Store) write(ctx context.Context, guards []clientv3.Cmp, ops ...clientv3.Op) (done bool, err error) {
	resp, err := s.client.Txn(ctx).If(guards...).Then(ops...).Commit()
	return err == nil && resp.Succeeded, err
}

// readAlive is the agent that a key says is alive, nil if the key is missing or garbage.
func readAlive(kv *mvccpb.KeyValue) *state.Alive {
	var a state.Alive
	if kv == nil || json.Unmarshal(kv.Value, &a) != nil {
		return nil
	}
	return &a
}
