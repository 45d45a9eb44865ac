package main

import (
	"context"
	"crypto/rand"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/boxwire/boxwire/internal/topology"
)

// A hub has the latest view of the machine. Pages wait for the next one, and see the latest however
// many there were meanwhile.
type hub struct {
	epoch string // sets the views of this program's run apart from those of another
	first chan struct{}

	mu      sync.Mutex
	last    *view
	raw     *topology.Snapshot // as it was read: the snapshot of last has what was explained, too
	said    explanations
	history []report
}

// A report is what a view has changed, in words.
type report struct {
	seq  uint64
	news []string
}

// maxHistory is how many views the server keeps for pages that have missed some.
const maxHistory = 500

func newHub() *hub {
	return &hub{epoch: rand.Text()[:8], first: make(chan struct{})}
}

// follow reads the machine until the context ends. When that fails, pages are told, and it is tried
// again after a pause.
func (h *hub) follow(ctx context.Context, src source, pause time.Duration) {
	var wg sync.WaitGroup
	defer wg.Wait()
	asked := make(chan *topology.Snapshot, 1)
	wg.Go(func() { h.explain(ctx, src.explain, asked) })
	for ctx.Err() == nil {
		for s, err := range src.watch(ctx) {
			if err != nil {
				h.fail(ctx, err)
				break
			}
			h.put(s)
			select { // the latest is asked about, and not each
			case <-asked:
			default:
			}
			asked <- s
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// put shows a snapshot.
func (h *hub) put(s *topology.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.raw != nil && h.last.trouble == "" && (h.raw == s || reflect.DeepEqual(h.raw, s)) {
		return
	}
	h.raw = s
	h.show(h.said.over(s), "")
}

// fail shows that the machine cannot be read any more.
func (h *hub) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &topology.Snapshot{}
	if h.last != nil {
		if h.last.trouble == err.Error() {
			return
		}
		s = h.last.snapshot
	}
	h.show(s, err.Error())
}

// say shows what was explained about ports that do not answer.
func (h *hub) say(said explanations) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if maps.Equal(h.said, said) {
		return
	}
	h.said = said
	if h.raw != nil && h.last.trouble == "" {
		h.show(said.over(h.raw), "")
	}
}

// show makes a view the latest one. The caller holds the lock.
func (h *hub) show(s *topology.Snapshot, trouble string) {
	if h.last == nil {
		h.last = newView(1, s, trouble)
		close(h.first)
		return
	}
	old := h.last
	v := newView(old.seq+1, s, trouble)
	r := report{seq: v.seq, news: news(old.snapshot, s)}
	if trouble != "" && old.trouble == "" {
		r.news = []string{"The machine cannot be read: " + trouble}
	}
	if len(h.history) == maxHistory {
		h.history = slices.Delete(h.history, 0, maxHistory/10)
	}
	h.history = append(h.history, r)
	h.last = v
	close(old.next)
}

// latest returns the latest view, and waits for the first one.
func (h *hub) latest(ctx context.Context) (*view, error) {
	select {
	case <-h.first:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last, nil
}

// since returns what views after one have changed, up to another. It is not whole if there were more
// than are remembered.
func (h *hub) since(after, upTo uint64) (news []string, whole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	whole = len(h.history) == 0 || h.history[0].seq <= after+1
	for _, r := range h.history {
		if after < r.seq && r.seq <= upTo {
			news = append(news, r.news...)
		}
	}
	return bounded(news), whole
}
