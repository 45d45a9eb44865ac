package failures

import (
	"context"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
)

// traffic is a stream between two boxes in each direction: IPv4 one way, IPv6 the other.
type traffic struct {
	w       *world
	streams []*lab.Stream
	dropped int // by the machine, before
}

// traffic starts, and returns when packets arrive both ways.
func (w *world) traffic(a, b *node) *traffic {
	w.t.Helper()
	// Both ends know their neighbours then: those that have to be looked for may cost a packet.
	w.reach(a, b)
	w.reach(b, a)
	s := &traffic{w: w, dropped: dropped(w.t)}
	for i, pair := range [][2]*lab.Box{{a.box, b.box}, {b.box, a.box}} {
		to := pair[1].Addrs[i%len(pair[1].Addrs)].Addr()
		stream, err := lab.StartStream(w.t.Context(), pair[0].NS, pair[1].NS, to, lab.StreamOptions{})
		w.must(err)
		w.t.Cleanup(func() { stream.Stop(context.Background()) })
		s.streams = append(s.streams, stream)
	}
	s.passes(20)
	return s
}

// passes waits until so many more packets have arrived each way: as many milliseconds pass at least.
func (s *traffic) passes(n int) {
	s.w.t.Helper()
	for _, stream := range s.streams {
		s.w.must(stream.WaitReceived(s.w.soon(), n))
	}
}

// passesFor waits until packets have arrived for a time.
func (s *traffic) passesFor(d time.Duration) {
	s.w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		s.passes(50)
	}
}

// whole ends the streams, of which no packet may be lost. Packets between namespaces wait in a queue of the CPU, which all programs
// of the machine share. Those that it drops because another program floods it are not the fleet's losses.
func (s *traffic) whole() {
	s.w.t.Helper()
	all := s.end()
	busy := dropped(s.w.t) - s.dropped
	if busy > 0 {
		s.w.t.Logf("the machine dropped %d packets of all programs meanwhile (/proc/net/softnet_stat)", busy)
	}
	for i, stats := range all {
		if stats.Lost > busy || stats.Refused > 0 || stats.Received == 0 {
			s.w.t.Errorf("stream %d: %v", i, stats)
		}
	}
}

// dropped is how many packets the CPUs have dropped since the machine's boot because their queues were full
// (net.core.netdev_max_backlog).
func dropped(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(string(text)) {
		n, err := strconv.ParseUint(strings.Fields(line)[1], 16, 32) // one line a CPU
		if err != nil {
			t.Fatal(err)
		}
		sum += int(n)
	}
	return sum
}

// end ends the streams.
func (s *traffic) end() []lab.Stats {
	s.w.t.Helper()
	var all []lab.Stats
	for i, stream := range s.streams {
		stats, err := stream.Stop(s.w.soon())
		s.w.must(err)
		s.w.t.Logf("stream %d: %v", i, stats)
		all = append(all, stats)
	}
	return all
}

// writes counts changes of hosts' kernels.
type writes struct {
	w  *world
	of map[*lab.Host]*lab.Writes
}

// watch begins to count on the hosts of nodes.
func (w *world) watch(nodes ...*node) *writes {
	w.t.Helper()
	c := &writes{w, map[*lab.Host]*lab.Writes{}}
	for _, n := range nodes {
		count, err := lab.CountWrites(w.t.Context(), n.host.NS)
		w.must(err)
		c.of[n.host] = count
	}
	return c
}

// end ends the count and returns the changes of each host. What the kernel does late at the links of
// boxes (link-local addresses, states of bridge ports) does not count: they are the lab's.
func (c *writes) end() map[*lab.Host][]lab.Change {
	c.w.t.Helper()
	all := map[*lab.Host][]lab.Change{}
	for h, count := range c.of {
		changes, err := count.Stop(c.w.soon())
		c.w.must(err)
		all[h] = slices.DeleteFunc(changes, func(c lab.Change) bool {
			return strings.Contains(c.What, " fe80:") || strings.HasPrefix(c.What, "link box")
		})
	}
	return all
}

// none ends the count, in which nothing may have changed.
func (c *writes) none() {
	c.w.t.Helper()
	all := c.end()
	for _, h := range slices.SortedFunc(maps.Keys(all), func(a, b *lab.Host) int { return strings.Compare(a.Name, b.Name) }) {
		if changes := all[h]; len(changes) > 0 {
			c.w.t.Errorf("%d changes on %s: %v", len(changes), h, changes)
		}
	}
}
