package agent

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
)

// saver writes into the state directory what the agent knows: the cache, and the state that boxes are made from. It works beside
// the loop, so that a disk that stalls holds up no route. Its methods may be called by any goroutine.
type saver struct {
	dir  string
	self state.ID
	log  *slog.Logger
	wake chan struct{}
	stop chan struct{} // closed by Close
	done chan struct{}

	mu       sync.Mutex // guards the following
	snapshot *state.Snapshot
	state    *status.State
	last     *state.Snapshot // that was given
}

// savePace is the least time between two writes. Each has a sync of the disk, and a fleet in which a thousand nodes join changes fifty
// times a second.
const savePace = 250 * time.Millisecond

// saveAgain is how long after a failure a file is written again.
const saveAgain = 2 * time.Second

func newSaver(dir string, self state.ID, log *slog.Logger) *saver {
	s := &saver{dir: dir, self: self, log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

// run writes what is given until Close, and then what is left.
func (s *saver) run() {
	defer close(s.done)
	failed := trouble{log: func(err error) { s.log.Warn("the state directory does not have what the agent knows", "error", err) }}
	for {
		select {
		case <-s.wake:
		case <-s.stop:
			failed.is(s.write())
			return
		}
		pause := savePace
		err := s.write()
		if failed.is(err); err != nil {
			pause = saveAgain
			s.nudge()
		}
		select {
		case <-time.After(pause):
		case <-s.stop:
		}
	}
}

// Close returns when the last is written. Nothing may be kept afterwards.
func (s *saver) Close() error {
	close(s.stop)
	<-s.done
	return nil
}

// keep has the snapshot written, if it is another one than the last. One without this node is of a store that has lost the fleet, or
// does not have the node yet: an agent that starts could not go on with it, and what was kept before stays.
func (s *saver) keep(snapshot *state.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := snapshot.Nodes[s.self]; !ok || snapshot == s.last {
		return
	}
	if s.last == nil || !sameCache(snapshot, s.last) {
		s.snapshot = snapshot
		s.nudge()
	}
	s.last = snapshot
}

// keepState has the state written.
func (s *saver) keepState(state *status.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
	s.nudge()
}

func (s *saver) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write writes what was given last. What could not be written is written the next time, unless something newer has come.
func (s *saver) write() error {
	s.mu.Lock()
	snapshot, state := s.snapshot, s.state
	s.snapshot, s.state = nil, nil
	s.mu.Unlock()
	var errs []error
	if snapshot != nil {
		if err := saveCache(s.dir, snapshot); err != nil {
			errs = append(errs, fmt.Errorf("the last known state: %w", err))
		} else {
			snapshot = nil
		}
	}
	if state != nil {
		if err := status.Write(s.dir, *state); err != nil {
			errs = append(errs, fmt.Errorf("the state that boxes are made from: %w", err))
		} else {
			state = nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.snapshot, s.state = cmp.Or(s.snapshot, snapshot), cmp.Or(s.state, state)
	return errors.Join(errs...)
}
