package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// KeepAlive says in the store that a node's agent runs, under a lease that it renews until ctx ends. It returns nil then, and leaves
// the lease to expire: an agent that is upgraded must not look like one that died.
//
// The key of a former agent is taken over at once if that ran on this boot of this machine and its process is gone. Otherwise
// KeepAlive waits until the lease ends. If somebody renews it, the error is a *TakenError.
//
// A store that is away is waited for, however long. One that has lost the lease or everything gets the key again. If another agent
// took over meanwhile, the one with the higher generation stays, and the other's KeepAlive returns a *TakenError.
//
// Any other error is the store's, such as that its disk is full. KeepAlive may be called again then.
//
// held is called each time the store has the key: from then on the agent may speak for the node. nil is not called.
func (s *Store) KeepAlive(ctx context.Context, a state.Alive, ttl time.Duration, held func()) error {
	if a.ID == (state.ID{}) || a.Instance == (state.ID{}) {
		return fmt.Errorf("keep alive: %w", invalid("node %v, instance %v: want both", a.ID, a.Instance))
	}
	if ttl < time.Second || ttl > time.Hour || ttl%time.Second != 0 {
		return fmt.Errorf("keep alive: %w", invalid("ttl %v: want whole seconds, 1s to 1h", ttl))
	}
	ctx, done := s.bound(ctx)
	defer done()
	k := keeper{Store: s, a: a, key: s.key(state.AliveKey(a.ID)), ttl: ttl}
	var wait backoff
	for ctx.Err() == nil {
		err := k.take(ctx)
		if err == nil {
			wait = backoff{}
			if held != nil {
				held()
			}
			err = k.hold(ctx)
		}
		if !away(err) && !errors.Is(err, errLost) && ctx.Err() == nil {
			return s.failed(ctx, "keep alive", err)
		}
		wait.sleep(ctx)
	}
	if s.closed.Load() {
		return s.failed(ctx, "keep alive", os.ErrClosed)
	}
	return nil
}

// keeper keeps one key alive.
type keeper struct {
	*Store
	a     state.Alive
	key   string
	ttl   time.Duration
	held  bool // this agent has had the key
	lease int64
}

var errLost = errors.New("the lease or the key is gone")

// take puts the key under a new lease, after it has waited for another agent's end.
func (k *keeper) take(ctx context.Context) error {
	for {
		old, done, err := k.try(ctx)
		if err != nil || done {
			return err
		}
		if old == nil {
			continue // it has changed meanwhile
		}
		if err := k.await(ctx, old); err != nil {
			return err
		}
	}
}

// try puts the key if it may. Otherwise it gives the key as the other agent has put it.
func (k *keeper) try(ctx context.Context) (other *mvccpb.KeyValue, done bool, err error) {
	ctx = clientv3.WithRequireLeader(ctx)
	old, err := k.get(ctx, k.key)
	if err != nil {
		return nil, false, err
	}
	mine, err := k.mine(old[0])
	if err != nil || !mine {
		return old[0], false, err
	}
	done, err = k.put(ctx, old[0])
	return nil, done, err
}

// mine reports whether the key is there for this agent to take. It is not if another agent may still be alive. The error is a
// *TakenError if that one is to stay.
func (k *keeper) mine(kv *mvccpb.KeyValue) (bool, error) {
	other := readAlive(kv)
	switch {
	case other == nil || kv.Lease == 0: // nobody, or not an agent: those have leases
		return true, nil
	case other.Instance == k.a.Instance:
		return true, nil
	case k.held && other.Generation >= k.a.Generation:
		return false, &TakenError{*other}
	case k.held:
		return true, nil
	}
	return gone(*other, k.a), nil
}

// put puts the key if it is as it was read. The node is not dead any more then.
func (k *keeper) put(ctx context.Context, old *mvccpb.KeyValue) (done bool, err error) {
	granted, err := k.client.Grant(ctx, int64(k.ttl/time.Second))
	if err != nil {
		return false, err
	}
	done, err = k.write(ctx, []clientv3.Cmp{same(k.key, old)},
		clientv3.OpPut(k.key, string(state.Encode(k.a)), clientv3.WithLease(granted.ID)),
		clientv3.OpDelete(k.Store.key(state.DeadKey(k.a.ID))))
	if err != nil {
		return false, err // the lease expires
	}
	if !done {
		k.revoke(ctx, int64(granted.ID))
		return false, nil
	}
	if old != nil {
		k.revoke(ctx, old.Lease) // it has no key any more
	}
	k.held, k.lease = true, int64(granted.ID)
	return true, nil
}

// hold renews the lease, also after the store was away. It returns errLost when the lease or the key is gone, or is another's.
func (k *keeper) hold(ctx context.Context) error {
	every := k.ttl / 3
	next := every
	var wait backoff
	for sleep(ctx, next) {
		err := k.check(ctx)
		switch {
		case err == nil:
			next, wait = every, backoff{}
		case away(err):
			next = min(every, wait.next()) // the lease may yet be alive when the store is back
		default:
			return err
		}
	}
	return ctx.Err()
}

// check renews the lease once, and looks whether the key is still there under it.
func (k *keeper) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), attempt)
	defer cancel()
	stream, err := k.Store.lease.LeaseKeepAlive(ctx, grpc.WaitForReady(false))
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: k.lease}); err != nil && !errors.Is(err, io.EOF) {
		return err // Recv says why a stream has ended
	}
	resp, err := stream.Recv()
	if err != nil {
		return err
	}
	if resp.TTL <= 0 {
		return errLost
	}
	kvs, err := k.get(ctx, k.key)
	if err != nil {
		return err
	}
	if now := readAlive(kvs[0]); now == nil || now.Instance != k.a.Instance || kvs[0].Lease != k.lease {
		return errLost
	}
	return nil
}

// await waits until another agent's key is gone or changed, or that agent's process is. The error is a *TakenError if the lease is
// renewed. One renewal does not count: a new leader of the store renews all leases.
func (k *keeper) await(ctx context.Context, kv *mvccpb.KeyValue) error {
	other, began, renewed, last := readAlive(kv), time.Now(), 0, int64(0)
	for {
		left, now, err := k.look(ctx, kv)
		if err != nil || now == nil || now.ModRevision != kv.ModRevision || gone(*other, k.a) {
			return err
		}
		granted := time.Duration(left.GrantedTTL) * time.Second
		if last > 0 && left.TTL > last {
			renewed++
		}
		// Whole seconds do not show the renewals of a short lease. What lives for three leases has been renewed, also where a new leader renewed it once.
		if last = left.TTL; renewed > 1 || time.Since(began) > 3*granted+time.Second {
			return &TakenError{*other}
		}
		if !sleep(ctx, max(granted/20, 100*time.Millisecond)) {
			return ctx.Err()
		}
	}
}

// look reads the key, and what is left of the lease that it was read with.
func (k *keeper) look(ctx context.Context, kv *mvccpb.KeyValue) (*clientv3.LeaseTimeToLiveResponse, *mvccpb.KeyValue, error) {
	ctx = clientv3.WithRequireLeader(ctx)
	left, err := k.client.TimeToLive(ctx, clientv3.LeaseID(kv.Lease))
	if err != nil {
		return nil, nil, err
	}
	kvs, err := k.get(ctx, k.key)
	if err != nil {
		return nil, nil, err
	}
	return left, kvs[0], nil
}

// revoke ends a lease that nobody needs. If that fails, the lease expires by itself.
func (s *Store) revoke(ctx context.Context, lease int64) {
	if lease != 0 {
		_, _ = s.client.Revoke(ctx, clientv3.LeaseID(lease))
	}
}

// gone reports whether the other agent ran on this boot of this machine, and its process is gone. Agents in containers with process
// IDs of their own do not see each other's processes; there, the generation decides.
func gone(other, self state.Alive) bool {
	return other.Boot != "" && other.Boot == self.Boot && other.Pid > 0 && !running(other.Pid, other.Started)
}

// running reports whether a process runs that began when the other says.
func running(pid int, began uint64) bool {
	now, err := ProcessStart(pid)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	return err != nil || began == 0 || now == began
}

// ProcessStart is when a process began, in clock ticks after the machine's boot: with its ID, that is one process and no other. A
// process that has ended is os.ErrNotExist, also while its parent has not waited for it.
func ProcessStart(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, and can have spaces. Field 3, the state, follows.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields after the name: want 20 at least", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d: %w", pid, os.ErrNotExist)
	}
	return strconv.ParseUint(fields[22-3], 10, 64)
}
