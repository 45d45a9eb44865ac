package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// pace is the least time between two Snapshots of changes. A change after a quiet time is passed on at once. When a thousand
// nodes join together, each agent computes fifty times a second and not a thousand times.
const pace = 20 * time.Millisecond

// Follow gives the fleet as it is, and again after each change. Changes that come close together are one Snapshot.
//
// An error says that the store is away, or that the changes since the last Snapshot are lost (compaction, another history after
// a restore). The sequence goes on by itself, and the next item without an error is a complete Snapshot: of what is there then,
// even if it is less, older or nothing. It ends when ctx does, or with os.ErrClosed after Close.
func (s *Store) Follow(ctx context.Context) iter.Seq2[*state.Snapshot, error] {
	return func(yield func(*state.Snapshot, error) bool) {
		ctx, done := s.bound(ctx)
		defer done()
		f := follower{Store: s, mirror: state.NewMirror()}
		for ctx.Err() == nil {
			err := f.session(ctx, yield)
			if errors.Is(err, errStop) || ctx.Err() != nil {
				break
			}
			if !yield(nil, s.failed(ctx, "follow the fleet", err)) || !f.wait.sleep(ctx) {
				break
			}
		}
		if s.closed.Load() && !f.stopped {
			yield(nil, s.failed(ctx, "follow the fleet", os.ErrClosed))
		}
	}
}

// errStop says that the caller's loop has ended.
var errStop = errors.New("stop")

// follower is one run of Follow. Its mirror lives through the loss of a store, so that what did not change is not decoded anew.
type follower struct {
	*Store
	mirror  *state.Mirror
	wait    backoff
	stopped bool // the caller's loop has ended
}

// session follows the fleet by one stream of changes, until it breaks.
//
// The stream is opened first and the fleet read then, so no change can be missed between the two: the stream has all that is
// younger than its beginning, and what is read is at least as old. The stream is one of a single connection. What makes a store
// forget its history (a restore, an emptied directory) ends the connection before.
func (f *follower) session(ctx context.Context, yield func(*state.Snapshot, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	var changes changes
	read := make(chan error, 1)
	opening, opened := context.WithTimeout(ctx, attempt)
	defer opened()
	stream, err := f.openWatch(ctx, opening)
	if err != nil {
		cancel()
		return err
	}
	changes.wake = make(chan struct{}, 1)
	go func() { read <- changes.read(stream) }()
	defer func() { cancel(); <-read }()

	kvs, revision, err := f.read(clientv3.WithRequireLeader(ctx), f.root)
	if err != nil {
		return err
	}
	f.mirror.Replace(f.pairs(kvs))
	f.wait = backoff{}
	for {
		if !yield(f.mirror.Snapshot(revision), nil) {
			f.stopped = true
			return errStop
		}
		last := time.Now()
		// A key that has changed and changed back makes a Snapshot too: its reader knows then how far the store is.
		for shown := revision; revision == shown; {
			select {
			case <-changes.wake:
			case err := <-read:
				read <- err
				return err
			}
			if ahead := pace - time.Since(last); ahead > 0 && !sleep(ctx, ahead) {
				return ctx.Err()
			}
			revision = f.apply(changes.take(), revision)
		}
	}
}

// apply changes the mirror by what is younger than the revision, and gives the new revision.
func (f *follower) apply(events map[string]*mvccpb.Event, revision int64) int64 {
	newest := revision
	for key, e := range events {
		if e.Kv.ModRevision <= revision {
			continue
		}
		newest = max(newest, e.Kv.ModRevision)
		key = strings.TrimPrefix(key, f.root)
		if e.Type == mvccpb.Event_DELETE {
			f.mirror.Delete(key)
		} else {
			f.mirror.Put(state.Pair{Key: key, Value: e.Kv.Value})
		}
	}
	return newest
}

// openWatch opens a stream of the fleet's changes and waits until the store has begun it. The stream lives as long as ctx.
func (f *follower) openWatch(ctx, opening context.Context) (pb.Watch_WatchClient, error) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(opening, cancel)
	stream, err := f.watch.Watch(clientv3.WithRequireLeader(ctx), grpc.WaitForReady(false))
	if err == nil {
		err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte(f.root), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(f.root)), Fragment: true,
		}}})
	}
	var first *pb.WatchResponse
	if err == nil || stream != nil && errors.Is(err, io.EOF) { // Recv says why a stream has ended
		first, err = stream.Recv()
	}
	if err == nil {
		err = canceled(first)
	}
	if err == nil && !stop() {
		err = context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		if opening.Err() != nil {
			err = context.DeadlineExceeded
		}
		return nil, err
	}
	return stream, nil
}

// canceled is why the store ends a watch, nil if it does not.
func canceled(resp *pb.WatchResponse) error {
	switch {
	case resp.CompactRevision != 0:
		return fmt.Errorf("changes since revision %d are gone: %w", resp.CompactRevision, rpctypes.ErrCompacted)
	case resp.Canceled:
		return fmt.Errorf("the store ended the watch: %s", resp.CancelReason)
	}
	return nil
}

// changes are those that a stream has brought and nobody has taken. There is one a key, the youngest: a reader that is slow, or
// does not read for a day, costs no more than the keys that changed.
type changes struct {
	wake chan struct{} // has room for one

	mu    sync.Mutex
	byKey map[string]*mvccpb.Event
}

// read collects changes until the stream ends.
func (c *changes) read(stream pb.Watch_WatchClient) error {
	var whole []*mvccpb.Event // of one answer; etcd sends a large one in pieces, and one transaction must not be torn
	for {
		resp, err := stream.Recv()
		if err == nil {
			err = canceled(resp)
		}
		if err != nil {
			return err
		}
		whole = append(whole, resp.Events...)
		if resp.Fragment || len(whole) == 0 {
			continue
		}
		c.mu.Lock()
		if c.byKey == nil {
			c.byKey = map[string]*mvccpb.Event{}
		}
		for _, e := range whole {
			c.byKey[string(e.Kv.Key)] = e
		}
		c.mu.Unlock()
		whole = nil
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// take gives the changes and forgets them.
func (c *changes) take() map[string]*mvccpb.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.byKey
	c.byKey = nil
	return taken
}
