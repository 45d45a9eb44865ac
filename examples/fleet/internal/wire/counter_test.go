package wire

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// A counter counts the changes of links, addresses and routes in a namespace.
type counter struct {
	ns *netns.NS

	mu     sync.Mutex
	events []string
	marks  [2]int // how often each watch has seen the counter's own marks
}

// markPrefix is a destination that is nobody's: the counter's own.
var markPrefix = netip.MustParsePrefix("198.18.0.1/32")

// countChanges begins to count.
func countChanges(t testing.TB, ns *netns.NS) *counter {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &counter{ns: ns}
	var watches sync.WaitGroup
	t.Cleanup(func() { cancel(); watches.Wait() })
	ready := make(chan bool, 2)
	watches.Go(func() {
		for e, err := range link.Watch(ctx, ns, link.TopicLinks, link.TopicAddrs) {
			switch {
			case err != nil:
				return
			case e.Kind == link.EventSynced:
				ready <- true
			case e.Kind == link.EventPresent:
			case e.Link != nil && e.Link.Name == "lo":
				c.mark(0)
			case e.Addr != nil:
				c.add(e.Kind.String() + " " + e.Addr.String())
			case e.Link != nil:
				c.add(e.Kind.String() + " " + e.Link.String())
			}
		}
	})
	watches.Go(func() {
		for e, err := range route.Watch(ctx, ns, route.Filter{Table: route.TableMain}) {
			switch {
			case err != nil:
				return
			case e.Kind == route.EventSynced:
				ready <- true
			case e.Kind == route.EventPresent:
			case e.Item.Dst == markPrefix:
				c.mark(1)
			default:
				c.add(e.Kind.String() + " " + e.Item.String())
			}
		}
	})
	<-ready
	<-ready
	return c
}

func (c *counter) add(event string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, event)
}

func (c *counter) mark(watch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marks[watch]++
}

// seen returns the changes up to now. A change of lo and a route of its own, behind them, show that they all have come.
func (c *counter) seen(t testing.TB) []string {
	t.Helper()
	c.mu.Lock()
	before := c.marks
	c.mu.Unlock()
	lo, err := link.Get(t.Context(), c.ns, "lo")
	try(t, err)
	try(t, second(lo.Update(t.Context(), link.Spec{Alias: fmt.Sprint("mark ", before[0])})))
	mark := route.Route{Dst: markPrefix, Type: route.TypeBlackhole}
	try(t, route.Add(t.Context(), c.ns, mark))
	try(t, route.Delete(t.Context(), c.ns, mark))
	eventually(t, "the counter's own events", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.marks[0] > before[0] && c.marks[1] >= before[1]+2
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	events := c.events
	c.events = nil
	return events
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 20 s still not: %s", what)
		}
	}
}
