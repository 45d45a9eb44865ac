package link

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// model is what a reader of events holds: each thing, in words.
type model struct {
	mu     sync.Mutex
	things map[string]string
	change chan struct{} // gets one after each event
}

// apply does with an event what the documentation of Watch does.
func (m *model) apply(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Kind {
	case EventResync:
		clear(m.things)
	case EventPresent, EventChanged, EventDeleted:
		key, value := words(&e)
		if e.Kind != EventDeleted {
			m.things[key] = value
		} else {
			delete(m.things, key)
		}
	}
	select {
	case m.change <- struct{}{}:
	default:
	}
}

// words is a thing's name and what is known of it, but what changes with time alone.
func words(e *Event) (key, value string) {
	key = fmt.Sprintf("%d %d %q", e.NSID, thingOf(e).topic, fmt.Sprint(thingOf(e)))
	switch {
	case e.Link != nil:
		l := *e.Link
		l.ns = nil
		return key, fmt.Sprintf("%+v", l)
	case e.Addr != nil:
		a := *e.Addr
		a.Valid, a.Preferred = 0, 0
		return key, fmt.Sprintf("%+v", a)
	case e.Neighbour != nil:
		n := *e.Neighbour
		n.Confirmed, n.Used, n.Updated, n.Probes = 0, 0, 0, 0
		return key, fmt.Sprintf("%+v", n)
	}
	f := *e.FDB
	f.Used, f.Updated = 0, 0
	if f.Type == FDBLocal {
		f.Link = 0 // which the kernel changes in silence
	}
	return key, fmt.Sprintf("%+v", f)
}

// listed is what the lists show of the topics.
func listed(t *testing.T, ns *netns.NS, id int, topics []Topic) map[string]string {
	t.Helper()
	all := map[string]string{}
	add := func(e Event) {
		e.NSID = id
		key, value := words(&e)
		all[key] = value
	}
	ctx := t.Context()
	var err error
	for _, topic := range topics {
		switch topic {
		case TopicLinks:
			var list []Link
			list, err = List(ctx, ns, Filter{})
			for i := range list {
				add(Event{Link: &list[i]})
			}
		case TopicAddrs:
			var list []Addr
			list, err = ListAddrs(ctx, ns)
			for i := range list {
				add(Event{Addr: &list[i]})
			}
		case TopicNeighbours:
			var list []Neighbour
			list, err = ListNeighbours(ctx, ns, NeighbourFilter{})
			for i := range list {
				if list[i].State != NeighbourNoARP { // which Watch does not tell
					add(Event{Neighbour: &list[i]})
				}
			}
		case TopicFDB:
			var list []FDBEntry
			list, err = ListFDB(ctx, ns, FDBFilter{})
			for i := range list {
				if f := &list[i]; !f.Self || f.Dst.IsValid() { // which Watch does not tell
					add(Event{FDB: f})
				}
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// changes are random commands for ip(8), many of which fail.
func changes(r *rand.Rand, n int) string {
	var b strings.Builder
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	name := func() string { return pick("a", "b", "c", "d", "br0", "br1", "ifb7") }
	for range n {
		dev := name()
		v4, v6 := fmt.Sprintf("10.%d.0.%d", r.IntN(2), 1+r.IntN(4)), fmt.Sprintf("fd0%d::%d", r.IntN(2), 1+r.IntN(4))
		mac := fmt.Sprintf("02:00:00:00:00:0%d", 1+r.IntN(4))
		fmt.Fprintln(&b, pick(
			"link add name "+dev+" type "+pick("bridge", "ifb"),
			"link add name a type veth peer name b",
			"link add name c type veth peer name d",
			"link del dev "+dev,
			"link set dev "+dev+" "+pick("up", "up", "up", "down"),
			"link set dev "+dev+" master "+pick("br0", "br1"),
			"link set dev "+dev+" nomaster",
			"link set dev "+dev+" mtu "+pick("1000", "1400", "1500"),
			"link set dev "+dev+" address "+mac,
			"link set dev "+dev+" name "+name(),
			"link set dev "+dev+" group "+pick("0", "7"),
			"link set dev "+dev+" addrgenmode "+pick("none", "eui64"),
			"link set dev "+dev+" arp "+pick("on", "off"),
			"addr add "+v4+"/"+pick("24", "24", "32")+" dev "+dev,
			"addr add "+v6+"/64 dev "+dev+pick("", " nodad"),
			"addr add "+v4+"/24 brd + dev "+dev+" label "+dev+":x",
			"addr replace "+v4+"/24 dev "+dev+" metric "+pick("5", "6"),
			"addr replace "+v6+"/64 dev "+dev+" metric "+pick("5", "6"),
			"addr replace "+v6+"/64 dev "+dev+" preferred_lft 0",
			"addr add "+v4+" peer 10.9.0.1 dev "+dev,
			"addr del "+v4+"/24 dev "+dev,
			"addr del "+v6+"/64 dev "+dev,
			"addr flush dev "+dev,
			"neigh replace "+pick(v4, v6)+" lladdr "+mac+" dev "+dev+" nud "+pick("permanent", "noarp", "stale"),
			"neigh del "+pick(v4, v6)+" dev "+dev,
			"neigh flush dev "+dev+" nud all",
		))
	}
	return b.String()
}

// fdbChanges are the same for bridge(8).
func fdbChanges(r *rand.Rand, n int) string {
	var b strings.Builder
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	for range n {
		fmt.Fprintln(&b, "fdb "+pick("add", "replace", "del")+fmt.Sprintf(" 02:00:00:00:00:1%d", r.IntN(4))+
			" dev "+pick("a", "b", "c", "d", "br0")+" "+pick("master static", "master", "master sticky static", "self permanent"))
	}
	return b.String()
}

// What a reader of events holds is what the lists show, after any changes that ip
// and bridge make, for each topic by itself and for all, here and in another
// namespace.
func TestWatchEqualsTheLists(t *testing.T) {
	t.Parallel()
	testutil.Witness(t, "ip")
	testutil.Witness(t, "bridge")
	seeds := 20
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(uint64(seed), 1))
			here, there := netnstest.New(t), netnstest.New(t)
			// The pair gives each an id in the other.
			link := mustCreate(t, here, Spec{Name: "pair", Kind: Veth{Peer: Spec{NS: there, Name: "pair"}}})
			ctx, cancel := context.WithCancel(t.Context())
			var readers sync.WaitGroup
			defer readers.Wait()
			defer cancel()
			type reader struct {
				model
				topics []Topic
				all    bool
			}
			var list []*reader
			for _, rd := range []*reader{
				{topics: []Topic{TopicLinks}}, {topics: []Topic{TopicAddrs}}, {topics: []Topic{TopicNeighbours}}, {topics: []Topic{TopicFDB}},
				{topics: []Topic{TopicLinks, TopicAddrs, TopicNeighbours, TopicFDB}}, {topics: []Topic{TopicLinks, TopicAddrs}, all: true},
			} {
				rd.things, rd.change = map[string]string{}, make(chan struct{}, 1)
				list = append(list, rd)
				synced := make(chan struct{})
				var once sync.Once
				readers.Go(func() {
					seq := Watch(ctx, here, rd.topics...)
					if rd.all {
						seq = WatchAll(ctx, here, rd.topics...)
					}
					for e, err := range seq {
						if err != nil && ctx.Err() == nil {
							t.Error(err)
						}
						if err != nil {
							break
						}
						rd.apply(e)
						if e.Kind == EventSynced {
							once.Do(func() { close(synced) })
						}
					}
				})
				<-synced
			}
			dir := t.TempDir()
			for round := range 4 {
				for i, ns := range []*netns.NS{here, there} {
					for tool, text := range map[string]string{"ip": changes(r, 60), "bridge": fdbChanges(r, 10)} {
						file := filepath.Join(dir, fmt.Sprint(tool, round, i))
						if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
							t.Fatal(err)
						}
						testutil.Try(t, ns, tool, "-force", "-batch", file) // some of it fails
					}
				}
			}
			for _, rd := range list {
				rd.settles(t, func() map[string]string {
					want := listed(t, here, -1, rd.topics)
					if rd.all {
						maps.Copy(want, listed(t, there, link.LinkNSID, rd.topics))
					}
					return want
				}, rd.topics, rd.all)
			}
		})
	}
}

// settles waits until the model is what want returns: some changes come later, by
// the kernel itself.
func (m *model) settles(t *testing.T, want func() map[string]string, topics []Topic, all bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		w := want()
		m.mu.Lock()
		have := maps.Clone(m.things)
		m.mu.Unlock()
		if maps.Equal(have, w) {
			return
		}
		select {
		case <-m.change:
		case <-deadline:
			for _, k := range slices.Sorted(maps.Keys(have)) {
				if w[k] != have[k] {
					t.Errorf("topics %v, all %v: events have   %s %s\nthe list has %s", topics, all, k, have[k], w[k])
				}
			}
			for k := range w {
				if have[k] == "" {
					t.Errorf("topics %v, all %v: events lack %s %s", topics, all, k, w[k])
				}
			}
			return
		}
	}
}
