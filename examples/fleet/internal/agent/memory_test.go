package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/route"
)

const hold = time.Minute

// scene is a fleet of two nodes as this one, the first, sees it.
type scene struct {
	t      *testing.T
	m      *memory
	s      *state.Snapshot
	now    time.Time
	routes []route.Route
}

var (
	self, peer = state.ID{1}, state.ID{2}
	peers      = netip.MustParsePrefix("10.100.2.0/24")
)

func newScene(t *testing.T) *scene {
	config := state.DefaultConfig()
	own := netip.MustParsePrefix("10.100.1.0/24")
	s := &scene{t: t, m: newMemory(hold), now: time.Unix(1e9, 0), s: &state.Snapshot{
		Config: &config,
		Nodes: map[state.ID]state.Node{
			self: {ID: self, Name: "a", Prefixes: []netip.Prefix{own}}, peer: {ID: peer, Name: "b", Prefixes: []netip.Prefix{peers}},
		},
		Claims: map[netip.Prefix]state.ID{own: self, peers: peer},
		Alive:  map[state.ID]state.Alive{self: {}, peer: {}},
		Dead:   map[state.ID]state.Dead{},
	}}
	s.routes = []route.Route{{Dst: peers, Type: route.TypeUnicast}}
	return s
}

// judge expects a verdict: whether the peer is down, how many routes are kept, how many questions are asked.
func (s *scene) judge(down bool, kept, asked int) verdict {
	s.t.Helper()
	v := s.m.judge(s.s, self, s.routes, s.now)
	if v.down[peer] != down || len(v.keep) != kept || len(v.ask) != asked {
		s.t.Errorf("down %v, kept %v, asked %v; want %v, %d, %d", v.down, v.keep, v.ask, down, kept, asked)
	}
	return v
}

func TestAPeerIsDownWhenTheHoldIsOverAndItDoesNotAnswer(t *testing.T) {
	s := newScene(t)
	s.judge(false, 0, 0)
	delete(s.s.Alive, peer)
	if v := s.judge(false, 0, 0); !v.next.Equal(s.now.Add(hold)) {
		t.Errorf("next %v; want the end of the hold", v.next)
	}
	s.now = s.now.Add(hold)
	v := s.judge(false, 0, 1)
	if q := v.ask[0]; q.node != peer || q.addrs[0] != netip.MustParseAddr("10.100.2.1") {
		t.Errorf("asked %v", q)
	}
	s.m.answered(v.ask[0], false, s.now)
	if v := s.judge(true, 0, 0); !v.next.IsZero() {
		t.Errorf("next %v of a peer that only an event brings back", v.next)
	}
	if at, ok := s.m.missedSince(peer); !ok || !at.Equal(s.now.Add(-hold)) {
		t.Errorf("missed since %v, %v", at, ok)
	}
	s.s.Alive[peer] = state.Alive{}
	s.judge(false, 0, 0)
}

func TestAPeerThatAnswersStays(t *testing.T) {
	s := newScene(t)
	s.judge(false, 0, 0)
	delete(s.s.Alive, peer)
	s.judge(false, 0, 0)
	for range 3 {
		s.now = s.now.Add(hold)
		v := s.judge(false, 0, 1)
		s.m.answered(v.ask[0], true, s.now)
		s.judge(false, 0, 0)
	}
}

func TestAnAbsenceWithinTheHoldIsForgotten(t *testing.T) {
	s := newScene(t)
	s.judge(false, 0, 0)
	for range 3 {
		delete(s.s.Alive, peer)
		s.judge(false, 0, 0)
		s.now = s.now.Add(hold - time.Second)
		s.judge(false, 0, 0)
		s.s.Alive[peer] = state.Alive{}
		s.judge(false, 0, 0)
	}
}

// An agent that starts knows nothing but the kernel and the store.
func TestANewAgentTakesOverWhatTheKernelShows(t *testing.T) {
	dead := state.Dead{Since: time.Unix(1, 0)}
	for _, c := range []struct {
		name        string
		alive, dead bool
		routes      []route.Route
		down        bool
	}{
		{"alive", true, false, nil, false},
		{"alive again", true, true, []route.Route{{Dst: peers, Type: route.TypeUnreachable}}, false},
		{"missing, with a route", false, false, []route.Route{{Dst: peers, Type: route.TypeUnicast}}, false},
		{"missing, unreachable", false, false, []route.Route{{Dst: peers, Type: route.TypeUnreachable}}, true},
		{"dead, with a route", false, true, []route.Route{{Dst: peers, Type: route.TypeUnicast}}, false},
		{"dead, without a route", false, true, nil, true},
		{"missing, without a route", false, false, nil, false},
		{"missing, has claimed what was this node's", false, false, []route.Route{{Dst: peers, Type: route.TypeUnreachable, Metric: plan.LastMetric}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			s.routes = c.routes
			if !c.alive {
				delete(s.s.Alive, peer)
			}
			if c.dead {
				s.s.Dead[peer] = dead
			}
			s.judge(c.down, 0, 0)
			s.judge(c.down, 0, 0)
		})
	}
}

// A store that came back empty says nothing of a peer whose route works.
func TestARouteOutlivesItsClaimForTheHold(t *testing.T) {
	for _, r := range []route.Route{{Dst: peers, Type: route.TypeUnicast}, {Dst: peers}} { // as the kernel has it, and as it was planned
		routeOutlivesItsClaim(t, r)
	}
}

func routeOutlivesItsClaim(t *testing.T, r route.Route) {
	s := newScene(t)
	s.routes = []route.Route{r}
	s.judge(false, 0, 0)
	gone := s.s.Nodes[peer]
	delete(s.s.Nodes, peer)
	clear(s.s.Claims)
	clear(s.s.Alive)
	s.judge(false, 1, 0)
	s.now = s.now.Add(hold)
	v := s.judge(false, 1, 1)
	s.m.answered(v.ask[0], true, s.now)
	s.judge(false, 1, 0)
	s.now = s.now.Add(hold)
	v = s.judge(false, 1, 1)
	s.m.answered(v.ask[0], false, s.now)
	s.judge(false, 0, 0)

	s = newScene(t)
	s.judge(false, 0, 0)
	delete(s.s.Nodes, peer)
	s.judge(false, 1, 0)
	s.s.Nodes[peer] = gone
	s.judge(false, 0, 0)
	if len(s.m.lost) != 0 {
		t.Error("a prefix that is claimed again is still remembered as lost")
	}
}

// What is none of the fleet's prefixes is not the memory's: the plan has the pools.
func TestOtherRoutesAreNotKept(t *testing.T) {
	s := newScene(t)
	s.routes = append(s.routes, route.Route{Dst: netip.MustParsePrefix("10.100.0.0/16"), Type: route.TypeUnreachable},
		route.Route{Dst: netip.MustParsePrefix("192.0.2.0/24")})
	s.judge(false, 0, 0)
}

func TestAnAnswerThatComesTooLateChangesNothing(t *testing.T) {
	s := newScene(t)
	s.judge(false, 0, 0)
	delete(s.s.Alive, peer)
	s.judge(false, 0, 0)
	s.now = s.now.Add(hold)
	v := s.judge(false, 0, 1)
	s.s.Alive[peer] = state.Alive{}
	s.judge(false, 0, 0)
	s.m.answered(v.ask[0], false, s.now)
	s.judge(false, 0, 0)

	delete(s.s.Alive, peer) // missing anew, and its hold has just begun
	s.judge(false, 0, 0)
	s.m.answered(v.ask[0], false, s.now)
	s.judge(false, 0, 0)
}
