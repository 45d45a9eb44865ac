//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// A Store is an etcd of one or more members, each a process on a host.
type Store struct {
	Members []*Member
}

// A Member is one member of the store. Kill, Stop, Pause (a disk that stalls), Resume and Output are those of [Process].
type Member struct {
	*Process
	Host *Host

	addr string
	dir  string
	id   uint64 // in the cluster; known when the member has answered
}

// Times of raft: a leader is elected within a second, on a busy machine too.
const (
	tickMs     = 50
	electionMs = 500
)

// StartStore starts an etcd with a member on each of the hosts: one, three or five of them. It listens on the underlay's IPv4
// addresses, with http and without fsync, and its data are in the lab's directory. The store answers when StartStore returns.
//
// The members' addresses are part of their data: [Host.ChangeAddrs] on such a host cuts its member off.
func (l *Lab) StartStore(ctx context.Context, hosts ...*Host) (*Store, error) {
	if len(hosts) == 0 {
		return nil, fmt.Errorf("lab.StartStore: no host: %w", os.ErrInvalid)
	}
	s := &Store{}
	var cluster []string
	for i, h := range hosts {
		m := &Member{Host: h, addr: h.Addr4().Addr().String(), dir: filepath.Join(h.Dir, "etcd")}
		s.Members = append(s.Members, m)
		cluster = append(cluster, fmt.Sprintf("m%d=http://%s:%d", i+1, m.addr, peerPort))
	}
	for i, m := range s.Members {
		arg, err := json.Marshal(memberConfig{
			Name: fmt.Sprintf("m%d", i+1), Dir: m.dir, Addr: m.addr, Cluster: strings.Join(cluster, ","),
			Tick: tickMs, Election: electionMs,
		})
		if err != nil {
			return nil, err
		}
		m.Process = m.Host.Program(etcdProgram, string(arg))
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Kill())
	}
	if err := s.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Kill())
	}
	return s, nil
}

// start starts all members.
func (s *Store) start() error {
	for _, m := range s.Members {
		if err := m.Start(); err != nil {
			return err
		}
	}
	return nil
}

// Endpoint is where the member answers clients: http://198.18.0.2:2379.
func (m *Member) Endpoint() string { return fmt.Sprintf("http://%s:%d", m.addr, clientPort) }

// Endpoints are those of all members, with commas between them, as the agent's -store has them.
func (s *Store) Endpoints() string {
	var all []string
	for _, m := range s.Members {
		all = append(all, m.Endpoint())
	}
	return strings.Join(all, ",")
}

// Client returns a client of all members that dials from a host: what cuts the host off cuts the client off. The caller
// closes it.
func (s *Store) Client(from *Host) (*clientv3.Client, error) {
	return newClient(from, strings.Split(s.Endpoints(), ",")...)
}

// client is a client of one member, from its own host: it works while the host is cut off.
func (m *Member) client() (*clientv3.Client, error) { return newClient(m.Host, m.Endpoint()) }

func newClient(from *Host, endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return from.NS.Dial(ctx, "tcp", addr)
		})},
	})
}

// ask is one question to a member, which has two seconds to answer.
func ask[T any](ctx context.Context, m *Member, question func(context.Context, *clientv3.Client) (T, error)) (T, error) {
	c, err := m.client()
	if err != nil {
		var none T
		return none, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return question(ctx, c)
}

// status asks a member who it is and who leads.
func (m *Member) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	r, err := ask(ctx, m, func(ctx context.Context, c *clientv3.Client) (*clientv3.StatusResponse, error) {
		return c.Status(ctx, m.Endpoint())
	})
	if err == nil {
		m.lab.mu.Lock()
		m.id = r.Header.MemberId
		m.lab.mu.Unlock()
	}
	return r, err
}

// WaitReady waits until the member answers and knows a leader. A member that has ended is an error at once, with its output.
func (m *Member) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	exited := m.Exited()
	go func() {
		select {
		case <-exited:
			cancel(errors.New("it has ended"))
		case <-ctx.Done():
		}
	}()
	err := poll(ctx, func() error {
		r, err := m.status(ctx)
		if err == nil && r.Leader == 0 {
			err = errors.New("it knows no leader")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("lab: %s is not ready: %w (%v)\n%s", m.Name, err, context.Cause(ctx), m.Output())
	}
	return nil
}

// WaitReady waits until every member that runs and is not paused answers and knows a leader.
func (s *Store) WaitReady(ctx context.Context) error {
	for _, m := range s.Members {
		if m.Paused() {
			continue
		}
		if !m.Running() {
			if m.Exited() != nil && m.Output() != "" {
				return fmt.Errorf("lab: %s has ended:\n%s", m.Name, m.Output())
			}
			continue
		}
		if err := m.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Restart ends the member if it runs, and starts it with its data. It answers when Restart returns.
func (m *Member) Restart(ctx context.Context) error {
	if err := m.Kill(); err != nil {
		return err
	}
	if err := m.Start(); err != nil {
		return err
	}
	return m.WaitReady(ctx)
}

// Kill kills all members: the store is away.
func (s *Store) Kill() error {
	var errs []error
	for _, m := range s.Members {
		errs = append(errs, m.Kill())
	}
	return errors.Join(errs...)
}

// Pause stops all members: connections stay, and nothing is answered.
func (s *Store) Pause() error {
	for _, m := range s.Members {
		if err := m.Pause(); err != nil {
			return err
		}
	}
	return nil
}

// Resume undoes Pause.
func (s *Store) Resume() error {
	for _, m := range s.Members {
		if err := m.Resume(); err != nil {
			return err
		}
	}
	return nil
}

// Restart ends all members that run, and starts all with their data. The store answers when Restart returns.
func (s *Store) Restart(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	return s.WaitReady(ctx)
}

// Lose kills all members, removes their data, and starts them as a new and empty etcd at the same addresses. The revisions begin
// at 1 again.
func (s *Store) Lose(ctx context.Context) error {
	if err := s.Kill(); err != nil {
		return err
	}
	for _, m := range s.Members {
		if err := os.RemoveAll(m.dir); err != nil {
			return err
		}
	}
	if err := s.start(); err != nil {
		return err
	}
	return s.WaitReady(ctx)
}

// Leader waits until a member that runs says that it leads, and returns it. Members that are paused are not asked; the others
// elect another leader if they are the majority.
func (s *Store) Leader(ctx context.Context) (*Member, error) {
	var leader *Member
	err := poll(ctx, func() error {
		var last error
		for _, m := range s.Members {
			if !m.Running() || m.Paused() {
				continue
			}
			r, err := m.status(ctx)
			if err != nil {
				last = err
				continue
			}
			if r.Leader == r.Header.MemberId {
				leader = m
				return nil
			}
		}
		return errors.Join(errors.New("no member says that it leads"), last)
	})
	if err != nil {
		return nil, fmt.Errorf("lab: leader of the store: %w", err)
	}
	return leader, nil
}

// MoveLeader makes another member the leader, and waits until it says so itself. All members must run.
func (s *Store) MoveLeader(ctx context.Context, to *Member) error {
	if _, err := to.status(ctx); err != nil { // for its id
		return fmt.Errorf("lab: %s: %w", to.Name, err)
	}
	err := poll(ctx, func() error {
		from, err := s.Leader(ctx)
		if err != nil || from == to {
			return err
		}
		_, err = ask(ctx, from, func(ctx context.Context, c *clientv3.Client) (*clientv3.MoveLeaderResponse, error) {
			return c.MoveLeader(ctx, to.id)
		})
		if err == nil {
			err = errors.New("the leader is about to change") // looked at once more
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("lab: %s does not become the leader: %w", to.Name, err)
	}
	return nil
}

// Compact removes all revisions but the present one, so that a watch from an earlier one fails. The data stay.
func (s *Store) Compact(ctx context.Context) error {
	m, err := s.Leader(ctx)
	if err != nil {
		return err
	}
	_, err = ask(ctx, m, func(ctx context.Context, c *clientv3.Client) (*clientv3.CompactResponse, error) {
		// A revision that is newer than what watchers know: the present one may be theirs.
		r, err := c.Put(ctx, "/boxwire-lab/compacted", time.Now().Format(time.RFC3339Nano))
		if err != nil {
			return nil, err
		}
		return c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
	})
	if err != nil {
		return fmt.Errorf("lab: compaction: %w", err)
	}
	return nil
}
