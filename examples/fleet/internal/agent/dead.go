//go:build linux

package agent

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

const (
	// keepDead is how long the store keeps the claims of a node that is dead.
	keepDead = 24 * time.Hour

	// askAgain is how long after a request about a node the store is asked again, should it not have done what it was asked.
	askAgain = time.Minute
)

// requests are when the store may be asked again about a node that is down.
type requests map[state.ID]time.Time

// due says which of the nodes that are down the store has to note as dead, which of them it has to let go of, and when the next is
// due. noted is what the store has. Each of the nodes counts as asked about from now on.
func (r requests) due(down map[state.ID]bool, noted map[state.ID]state.Dead, now time.Time) (note, letGo []state.ID, next time.Time) {
	maps.DeleteFunc(r, func(id state.ID, _ time.Time) bool { return !down[id] })
	for id := range down {
		dead, isNoted := noted[id]
		if ends := dead.Since.Add(keepDead); isNoted && now.Before(ends) {
			next = sooner(next, ends)
			continue
		}
		if again := r[id]; now.Before(again) {
			next = sooner(next, again)
			continue
		}
		r[id] = now.Add(askAgain)
		next = sooner(next, r[id])
		if isNoted {
			letGo = append(letGo, id)
		} else {
			note = append(note, id)
		}
	}
	return note, letGo, next
}

// tellDead tells the store which nodes are down, lets it take out those that have been dead for long, and says when that is next due.
// Every agent does, and the store lets one of them.
func (a *agent) tellDead(ctx context.Context, v verdict, now time.Time) time.Time {
	if a.away {
		return time.Time{} // the next snapshot brings this back
	}
	note, letGo, next := a.requests.due(v.down, a.snapshot.Dead, now)
	for _, id := range note {
		since, _ := a.memory.missedSince(id)
		a.request(ctx, "a node that is down is not noted as dead", id, func(ctx context.Context) error {
			return a.store.MarkDead(ctx, id, since)
		})
	}
	for _, id := range letGo {
		name, dead := a.snapshot.Name(id), a.snapshot.Dead[id]
		a.request(ctx, "a node that is dead for long is not taken out of the store", id, func(ctx context.Context) error {
			gone, err := a.store.Collect(ctx, id, dead)
			if gone {
				a.Log.Warn("a node was dead for long and is taken out of the store", "node", name, "since", dead.Since)
			}
			return err
		})
	}
	return next
}

// request asks the store for something about a node, beside the loop. trouble is what a failure means.
func (a *agent) request(ctx context.Context, trouble string, id state.ID, ask func(context.Context) error) {
	name := a.snapshot.Name(id)
	a.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, askAgain)
		defer cancel()
		if err := ask(ctx); err != nil && !errors.Is(err, context.Canceled) {
			a.Log.Warn(trouble, "node", name, "error", err)
		}
	})
}
