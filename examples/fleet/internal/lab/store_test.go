//go:build linux

package lab_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
)

// put writes a key and returns the revision; it tries again while there is no leader.
func put(t *testing.T, c *clientv3.Client, key, value string) int64 {
	t.Helper()
	ctx := soon(t)
	for {
		try, cancel := context.WithTimeout(ctx, time.Second) // of a member that is paused there is no answer
		r, err := c.Put(try, key, value)
		cancel()
		if err == nil {
			return r.Header.Revision
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func get(t *testing.T, c *clientv3.Client, key string) string {
	t.Helper()
	r, err := c.Get(soon(t), key)
	must(t, err)
	if len(r.Kvs) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

func TestStoreOfOne(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2}})
	s, err := l.StartStore(soon(t), l.Hosts[0])
	must(t, err)
	if s.Endpoints() != "http://198.18.0.2:2379" {
		t.Errorf("endpoints: %s", s.Endpoints())
	}
	c, err := s.Client(l.Hosts[1])
	must(t, err)
	defer c.Close()
	first := put(t, c, "a", "1")
	must(t, s.Compact(soon(t)))
	if _, err := c.Get(soon(t), "a", clientv3.WithRev(first)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a compacted revision: %v", err)
	}
	m := s.Members[0]
	must(t, m.Pause())
	must(t, m.Resume())
	must(t, m.Restart(soon(t)))
	if v := get(t, c, "a"); v != "1" {
		t.Errorf("after a restart: %q", v)
	}
	must(t, s.Lose(soon(t)))
	if v := get(t, c, "a"); v != "" {
		t.Errorf("after the data were lost: %q", v)
	}
}

func TestStoreOfThree(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{3, 1}})
	s, err := l.StartStore(soon(t), l.Hosts[:3]...)
	must(t, err)
	c, err := s.Client(l.Hosts[3])
	must(t, err)
	defer c.Close()
	put(t, c, "a", "1")
	leader, err := s.Leader(soon(t))
	must(t, err)
	other := s.Members[0]
	if other == leader {
		other = s.Members[1]
	}
	must(t, s.MoveLeader(soon(t), other))
	if now, err := s.Leader(soon(t)); now != other || err != nil {
		t.Errorf("the leader is %v, %v", now, err)
	}
	must(t, other.Pause()) // a disk that stalls: the others go on
	for {
		now, err := s.Leader(soon(t))
		must(t, err)
		if now != other {
			break
		}
	}
	put(t, c, "a", "2")
	must(t, other.Resume())
	must(t, other.Kill())
	put(t, c, "a", "3")
	must(t, other.Restart(soon(t)))
	if v := get(t, c, "a"); v != "3" {
		t.Errorf("a is %q", v)
	}
}
