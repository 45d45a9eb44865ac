package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/grpclog"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// How long things take that a store does not answer.
const (
	patience = 10 * time.Second // a call is tried again so long
	attempt  = 5 * time.Second  // one request
	dialing  = 3 * time.Second  // one connection
)

// Store is a client of one fleet's keys. Its methods may be called by several goroutines at once.
//
// A call tries again while the store is away, for ten seconds at most or until its context ends. It does not try again when a
// certificate is refused. Follow and KeepAlive go on until their context ends.
type Store struct {
	root    string // ends with '/'
	where   string // the endpoints, for messages
	client  *clientv3.Client
	watch   pb.WatchClient
	lease   pb.LeaseClient
	dialer  *dialer
	closed  atomic.Bool
	closing context.Context // ends with Close
	close   context.CancelFunc
}

func init() {
	// gRPC writes what it thinks of connections to standard error. Its log is one for the whole program, and can only be set
	// before gRPC is used.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}

// Open makes a Store. It refuses bad input, and does not wait for the store: the first call does.
func Open(cfg Config) (*Store, error) {
	where := strings.Join(cfg.Endpoints, ", ")
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	tls, err := cfg.tls()
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", where, err)
	}
	s := &Store{root: state.Root(cfg.Fleet), where: where, dialer: newDialer(cfg)}
	options := []grpc.DialOption{
		grpc.WithContextDialer(s.dialer.context),
		// gRPC's own wait between two connections grows to two minutes, and a store that is back would not be found so long.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: dialing,
		}),
		grpc.WithChainUnaryInterceptor(failFast),
		grpc.WithTransportCredentials(newHandshaker(cfg, tls, s.dialer)),
	}
	s.client, err = clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints, TLS: tls, DialOptions: options, Logger: zap.NewNop(),
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		MaxUnaryRetries: 1, // call does it
	})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", where, err)
	}
	// Its client of watches reconnects without a word, and goes on at a revision that may be of another history. Its client of
	// leases spins while the store is away. Both are used as gRPC has them.
	s.watch = pb.NewWatchClient(s.client.ActiveConnection())
	s.lease = pb.NewLeaseClient(s.client.ActiveConnection())
	s.closing, s.close = context.WithCancel(context.Background())
	return s, nil
}

// Close ends all calls and connections. Leases go on until they expire.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.close()
	_ = s.client.Close() // it says that its context was cancelled, which Close does
	return nil
}

// Moved tells which addresses the host has now. Connections from others are ended, and calls go on by new ones: no packet comes back
// to an address that is gone, and TCP notices it after many seconds only.
func (s *Store) Moved(has []netip.Addr) {
	s.dialer.closeFrom(func(a netip.Addr) bool { return !a.IsLoopback() && !slices.Contains(has, a) })
}

// failFast makes a request without a connection fail with gRPC's reason, where etcd's client makes it wait without one. It bounds
// the time of one request.
func failFast(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return invoke(ctx, method, req, reply, cc, append(opts, grpc.WaitForReady(false))...)
}

// call runs f until it succeeds, or fails for another reason than that the store is away. f reads before it writes, so that it
// may run again. what says in messages what is tried.
func (s *Store) call(ctx context.Context, what string, f func(ctx context.Context) error) error {
	ctx, done := s.bound(ctx)
	defer done()
	var wait backoff
	var last error
	var since time.Time // the first failure
	for {
		err := f(clientv3.WithRequireLeader(ctx))
		if err == nil {
			return nil
		}
		if last == nil {
			since = time.Now()
		}
		if last == nil || ctx.Err() == nil {
			last = err // not that the context ended, but why there was no answer before
		}
		if !away(err) || s.dialer.refused() || time.Since(since) > patience || !wait.sleep(ctx) {
			return s.failed(ctx, what, last)
		}
	}
}

// bound makes the context end with the Store too.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.closing, func() { cancel(os.ErrClosed) })
	return ctx, func() { stop(); cancel(nil) }
}

// failed says what was tried, where, and why it failed.
func (s *Store) failed(ctx context.Context, what string, err error) error {
	if s.closed.Load() {
		return fmt.Errorf("store %s: %s: %w", s.where, what, os.ErrClosed)
	}
	cause := plain(err)
	if away(err) {
		// What a connection failed with is nearer to the cause than what gRPC makes of it.
		cause = cmp.Or(s.dialer.cause(), cause)
	}
	if errors.Is(cause, context.DeadlineExceeded) || code(cause) == codes.DeadlineExceeded {
		cause = &ended{context.DeadlineExceeded, errors.New("no answer")}
	}
	if end := ctx.Err(); end != nil && !errors.Is(cause, end) {
		cause = &ended{end, cause}
	}
	return fmt.Errorf("store %s: %s: %w", s.where, what, cause)
}

// ended is an error after which the time was up.
type ended struct{ end, cause error }

func (e *ended) Error() string   { return e.cause.Error() }
func (e *ended) Unwrap() []error { return []error{e.end, e.cause} }

// key is the whole key of one relative to the fleet's.
func (s *Store) key(relative string) string { return s.root + relative }

// backoff is a wait that doubles, from 50 ms to 2 s.
type backoff struct{ last time.Duration }

// next is the next wait. It varies by a quarter, so that agents that lost a store together do not come back together.
func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 50*time.Millisecond), 2*time.Second)
	return b.last*3/4 + rand.N(b.last/2)
}

// sleep waits, and reports false if the context ended meanwhile.
func (b *backoff) sleep(ctx context.Context) bool { return sleep(ctx, b.next()) }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
