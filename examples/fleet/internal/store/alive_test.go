package store

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// aliveOf is an agent of a node on some machine.
func aliveOf(id state.ID, generation uint64, machine string) state.Alive {
	return state.Alive{
		Version: state.Version, ID: id, Generation: generation, Instance: state.NewID(), Machine: machine, Boot: "boot of " + machine, Pid: 7,
	}
}

// keeping is a KeepAlive that runs beside the test.
type keeping struct {
	t    testing.TB
	stop context.CancelFunc
	err  chan error
}

func keep(t testing.TB, s *Store, a state.Alive, ttl time.Duration) keeping {
	ctx, cancel := context.WithCancel(t.Context())
	k := keeping{t, cancel, make(chan error, 1)}
	go func() { k.err <- s.KeepAlive(ctx, a, ttl, nil) }()
	t.Cleanup(cancel)
	return k
}

// end waits until KeepAlive has returned.
func (k keeping) end() error {
	k.t.Helper()
	select {
	case err := <-k.err:
		return err
	case <-time.After(20 * time.Second):
		k.t.Fatal("KeepAlive does not return within 20s")
		return nil
	}
}

// waitFor waits until the key is of an agent.
func waitFor(t testing.TB, c *clientv3.Client, s *Store, a state.Alive) {
	t.Helper()
	poll(t, "the key is of "+a.Machine, func() bool {
		resp, err := c.Get(t.Context(), s.key(state.AliveKey(a.ID)))
		if err != nil || len(resp.Kvs) == 0 {
			return false
		}
		now := readAlive(resp.Kvs[0])
		return now != nil && now.Instance == a.Instance && resp.Kvs[0].Lease != 0
	})
}

// put puts another agent's key under a lease, which nobody renews.
func put(t testing.TB, c *clientv3.Client, s *Store, a state.Alive, ttl int64) clientv3.LeaseID {
	t.Helper()
	lease, err := c.Grant(t.Context(), ttl)
	must(t, err)
	_, err = c.Put(t.Context(), s.key(state.AliveKey(a.ID)), string(state.Encode(a)), clientv3.WithLease(lease.ID))
	must(t, err)
	return lease.ID
}

func TestKeepAliveRenewsAndLeavesTheLeaseAtItsEnd(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	a := aliveOf(idOf(1), 1, "one")
	key := s.key(state.AliveKey(a.ID))
	events := c.Watch(t.Context(), key)
	k := keep(t, s, a, 3*time.Second)
	waitFor(t, c, s, a)
	first := <-events
	// For longer than a lease, nothing happens to the key: it neither expires nor is written again.
	select {
	case more := <-events:
		t.Fatalf("after %v: %v", first.Events, more.Events)
	case <-time.After(4 * time.Second):
	}
	k.stop()
	must(t, k.end())
	if revision(t, c, key) == 0 {
		t.Error("the key went with the agent: an upgrade would look like a death")
	}
	poll(t, "the lease expires", func() bool { return revision(t, c, key) == 0 })
}

func TestKeepAliveEndsThatTheNodeIsDead(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	a := aliveOf(idOf(1), 1, "one")
	cfg := small()
	p, err := s.Claim(t.Context(), a.ID, cfg)
	must(t, err)
	must(t, s.PutNode(t.Context(), nodeOf(a.ID, "a", p...)))
	must(t, s.MarkDead(t.Context(), a.ID, time.Now()))
	if revision(t, c, s.key(state.DeadKey(a.ID))) == 0 {
		t.Fatal("the node is not dead")
	}
	keep(t, s, a, 10*time.Second)
	waitFor(t, c, s, a)
	if revision(t, c, s.key(state.DeadKey(a.ID))) != 0 {
		t.Error("the node is back, and still noted as dead")
	}
	// Nobody can mark it while its agent is there.
	must(t, s.MarkDead(t.Context(), a.ID, time.Now()))
	if revision(t, c, s.key(state.DeadKey(a.ID))) != 0 {
		t.Error("a node whose agent is alive is marked as dead")
	}
}

func TestKeepAliveTakesOverAtOnceFromAProcessThatIsGone(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	cmd := exec.Command("true")
	must(t, cmd.Run())
	old, a := aliveOf(idOf(1), 1, "one"), aliveOf(idOf(1), 2, "one")
	old.Pid = cmd.Process.Pid
	lease := put(t, c, s, old, 3600) // longer than any test waits
	keep(t, s, a, time.Second)
	waitFor(t, c, s, a)
	poll(t, "the old lease is ended", func() bool {
		left, err := c.TimeToLive(t.Context(), lease)
		return err == nil && left.TTL == -1
	})
}

func TestRunning(t *testing.T) {
	t.Parallel()
	if !running(os.Getpid(), 0) {
		t.Error("this process does not run")
	}
	if running(os.Getpid(), 1) {
		t.Error("this process began with the machine")
	}
	cmd := exec.Command("sleep", "100")
	must(t, cmd.Start())
	if !running(cmd.Process.Pid, 0) {
		t.Error("sleep does not run")
	}
	must(t, cmd.Process.Kill())
	poll(t, "a zombie counts as gone", func() bool { return !running(cmd.Process.Pid, 0) })
	_ = cmd.Wait()
	if running(cmd.Process.Pid, 0) {
		t.Error("sleep still runs")
	}
}

func TestKeepAliveWaitsForTheLeaseOfAnotherBoot(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	// The generation does not count here: it is lower after the node's directory came back from a backup.
	old, a := aliveOf(idOf(1), 9, "before the reboot"), aliveOf(idOf(1), 2, "after it")
	put(t, c, s, old, 2)
	events := c.Watch(t.Context(), s.key(state.AliveKey(a.ID)))
	keep(t, s, a, time.Second)
	if first := <-events; first.Events[0].Type != clientv3.EventTypeDelete {
		t.Fatalf("%v: want the old key to expire first", first.Events)
	}
	waitFor(t, c, s, a)
}

func TestKeepAliveRefusesAClonedIdentity(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	one, two := aliveOf(idOf(1), 1, "one"), aliveOf(idOf(1), 2, "two")
	one.Pid = 4711
	first := keep(t, s, one, 3*time.Second)
	waitFor(t, c, s, one)
	err := keep(t, open(t, shared), two, time.Second).end()
	var taken *TakenError
	if !errors.As(err, &taken) || taken.Other != one {
		t.Fatalf("error %v: want a TakenError of %+v", err, one)
	}
	mustBe(t, err, os.ErrExist)
	for _, word := range []string{`"one"`, "4711", one.ID.String()} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not have %s", err, word)
		}
	}
	waitFor(t, c, s, one)
	first.stop()
	must(t, first.end())
}

func TestKeepAlivePutsTheKeyAgain(t *testing.T) {
	t.Parallel()
	s, c := open(t, shared), raw(t, shared)
	a := aliveOf(idOf(1), 1, "one")
	key := s.key(state.AliveKey(a.ID))
	keep(t, s, a, time.Second)
	waitFor(t, c, s, a)
	resp, err := c.Get(t.Context(), key)
	must(t, err)
	_, err = c.Revoke(t.Context(), clientv3.LeaseID(resp.Kvs[0].Lease))
	must(t, err)
	waitFor(t, c, s, a)
	_, err = c.Delete(t.Context(), key)
	must(t, err)
	waitFor(t, c, s, a)
	_, err = c.Put(t.Context(), key, "garbage")
	must(t, err)
	waitFor(t, c, s, a)
}

func TestKeepAliveSurvivesAStoreThatIsAwayOrEmptied(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	m.Close()
	s := open(t, m.Embedded)
	a := aliveOf(idOf(1), 1, "one")
	k := keep(t, s, a, time.Second)
	select {
	case err := <-k.err:
		t.Fatalf("KeepAlive returns %v while the store is away", err)
	case <-time.After(time.Second):
	}
	m.start()
	waitFor(t, raw(t, m.Embedded), s, a)
	m.empty()
	waitFor(t, raw(t, m.Embedded), s, a)
	k.stop()
	must(t, k.end())
}

func TestKeepAliveAfterAPauseInWhichAnotherTookOver(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		generation uint64
		stays      bool
	}{{"higher", 3, true}, {"same", 2, true}, {"lower", 1, false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, c := open(t, shared), raw(t, shared)
			a, other := aliveOf(idOf(1), 2, "one"), aliveOf(idOf(1), test.generation, "two")
			k := keep(t, s, a, time.Second)
			waitFor(t, c, s, a)
			put(t, c, s, other, 3600)
			if !test.stays {
				waitFor(t, c, s, a)
				return
			}
			var taken *TakenError
			if err := k.end(); !errors.As(err, &taken) || taken.Other != other {
				t.Fatalf("error %v: want a TakenError of %+v", err, other)
			}
			waitFor(t, c, s, other)
		})
	}
}

func TestKeepAliveRefusesBadInput(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	mustBe(t, s.KeepAlive(t.Context(), state.Alive{ID: idOf(1)}, time.Second, nil), os.ErrInvalid)
	mustBe(t, s.KeepAlive(t.Context(), aliveOf(idOf(1), 1, "one"), 1500*time.Millisecond, nil), os.ErrInvalid)
	s.Close()
	mustBe(t, s.KeepAlive(t.Context(), aliveOf(idOf(1), 1, "one"), time.Second, nil), os.ErrClosed)
}
