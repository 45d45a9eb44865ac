package store

import (
	"context"
	"iter"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// page is how many keys are read at once. Values are below 2 KiB, and etcd refuses an answer above some MiB.
const page = 1000

// read reads all keys that begin with the prefix, at one revision.
func (s *Store) read(ctx context.Context, prefix string) (kvs []*mvccpb.KeyValue, revision int64, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		kvs = append(kvs, resp.Kvs...)
		if !resp.More || len(resp.Kvs) == 0 {
			return kvs, revision, nil
		}
		from = string(kvs[len(kvs)-1].Key) + "\x00"
	}
}

// pairs are what package state knows of keys and values.
func (s *Store) pairs(kvs []*mvccpb.KeyValue) iter.Seq[state.Pair] {
	return func(yield func(state.Pair) bool) {
		for _, kv := range kvs {
			if !yield(state.Pair{Key: strings.TrimPrefix(string(kv.Key), s.root), Value: kv.Value}) {
				return
			}
		}
	}
}

// Snapshot reads the fleet once.
func (s *Store) Snapshot(ctx context.Context) (*state.Snapshot, error) {
	var snapshot *state.Snapshot
	err := s.call(ctx, "read the fleet", func(ctx context.Context) error {
		kvs, revision, err := s.read(ctx, s.root)
		if err == nil {
			snapshot = state.Decode(revision, s.pairs(kvs))
		}
		return err
	})
	return snapshot, err
}
