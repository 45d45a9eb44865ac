package store

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/netns"
)

// small is a Config with room for four nodes.
func small() state.Config {
	cfg := state.DefaultConfig()
	cfg.Pools = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/22"), netip.MustParsePrefix("fd00::/48")}
	return cfg
}

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func wantClaim(t testing.TB, s *Store, id state.ID, cfg state.Config, want ...string) {
	t.Helper()
	got, err := s.Claim(t.Context(), id, cfg)
	must(t, err)
	if !slices.Equal(got, prefixes(want...)) {
		t.Fatalf("claim %v: want %v", got, want)
	}
}

func TestClaimIsTheSameAgainAndAfterALossOfTheStore(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	s := open(t, m.Embedded)
	cfg := small()
	wantClaim(t, s, idOf(2), cfg, "10.0.2.0/24", "fd00:0:0:2::/64")
	c := raw(t, m.Embedded)
	before := revision(t, c, s.key("claim/10.0.2.0-24"))
	wantClaim(t, s, idOf(2), cfg, "10.0.2.0/24", "fd00:0:0:2::/64")
	if after := revision(t, c, s.key("claim/10.0.2.0-24")); after != before {
		t.Errorf("the second claim has written: revision %d after %d", after, before)
	}
	m.empty()
	wantClaim(t, s, idOf(2), cfg, "10.0.2.0/24", "fd00:0:0:2::/64")
}

func TestClaimTakesTheNextWhereAnotherNodeIs(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	cfg := small()
	wantClaim(t, s, idOf(3), cfg, "10.0.3.0/24", "fd00:0:0:3::/64")
	wantClaim(t, s, idOf(7), cfg, "10.0.0.0/24", "fd00:0:0:7::/64") // 7 modulo 4 is 3, which is taken
	// A node that has lost one of its claims, or whose fleet has got another family, keeps the other.
	_, err := raw(t, shared).Delete(t.Context(), s.key("claim/fd00:0:0:7::-64"))
	must(t, err)
	wantClaim(t, s, idOf(7), cfg, "10.0.0.0/24", "fd00:0:0:7::/64")
}

func TestClaimDoesNotTouchClaimsThatItCannotRead(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	_, err := raw(t, shared).Put(t.Context(), s.key("claim/10.0.1.0-24"), "garbage")
	must(t, err)
	wantClaim(t, s, idOf(1), small(), "10.0.2.0/24", "fd00:0:0:1::/64")
}

func TestClaimOfAFullPoolSaysWhoHasIt(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	cfg := small()
	for i := range uint64(4) {
		got, err := s.Claim(t.Context(), idOf(i), cfg)
		must(t, err)
		if i == 1 {
			must(t, s.PutNode(t.Context(), nodeOf(idOf(i), "web", got...)))
		}
	}
	_, err := s.Claim(t.Context(), idOf(9), cfg)
	var full *PoolFullError
	if !errors.As(err, &full) {
		t.Fatalf("error %v: want a PoolFullError", err)
	}
	if full.Family != netns.IPv4 || len(full.Holders) != 4 || full.Holders[1].Node != idOf(1) || full.Holders[1].Prefix != netip.MustParsePrefix("10.0.1.0/24") {
		t.Errorf("%+v", full)
	}
	for _, word := range []string{"10.0.0.0/22", "10.0.1.0/24 is of web", idOf(3).String()} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not have %q", err, word)
		}
	}
	// All or nothing: the other family has room, and gets no claim.
	snapshot, err := s.Snapshot(t.Context())
	must(t, err)
	if len(snapshot.Claims) != 8 {
		t.Errorf("%d claims: want 8", len(snapshot.Claims))
	}
	// The four that are there still find theirs.
	wantClaim(t, s, idOf(2), cfg, "10.0.2.0/24", "fd00:0:0:2::/64")
}

func TestClaimRefusesBadInput(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	_, err := s.Claim(t.Context(), state.ID{}, small())
	mustBe(t, err, os.ErrInvalid)
	cfg := small()
	cfg.Size4 = 8
	_, err = s.Claim(t.Context(), idOf(1), cfg)
	mustBe(t, err, os.ErrInvalid)
}

// A thousand nodes want the prefixes of a pool that has 1,024, on four connections, and all begin at the same time. Half of them
// have the same few first choices.
func TestClaimByAThousandNodesAtOnce(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	cfg := state.DefaultConfig()
	cfg.Pools = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/14"), netip.MustParsePrefix("fd00::/48")}
	var clients []*Store
	for range 4 {
		clients = append(clients, open(t, m.Embedded))
	}
	const n = 1000
	var all sync.WaitGroup
	begin := make(chan struct{})
	errs := make([]error, n)
	claims := make([][]netip.Prefix, n)
	for i := range n {
		id := state.NewID()
		if i%2 == 0 {
			first := idOf(uint64(i % 10))
			copy(id[:8], first[:8])
		}
		all.Go(func() {
			<-begin
			claims[i], errs[i] = clients[i%len(clients)].Claim(t.Context(), id, cfg)
		})
	}
	close(begin)
	all.Wait()
	must(t, errors.Join(errs...))
	of := map[netip.Prefix]int{}
	for i, c := range claims {
		if len(c) != 2 || !c[0].Addr().Is4() || !c[1].Addr().Is6() {
			t.Fatalf("node %d has %v", i, c)
		}
		for _, p := range c {
			if other, ok := of[p]; ok {
				t.Fatalf("%v is of node %d and of node %d", p, other, i)
			}
			of[p] = i
		}
	}
	resp, err := raw(t, m.Embedded).Get(t.Context(), clients[0].key("claim/"), clientv3.WithPrefix(), clientv3.WithCountOnly())
	must(t, err)
	if resp.Count != 2*n {
		t.Errorf("%d claims in the store: want %d", resp.Count, 2*n)
	}
}

func TestClaimByTwoAgentsOfOneNode(t *testing.T) {
	t.Parallel()
	s := open(t, shared)
	cfg := small()
	for i := range uint64(4) {
		id := idOf(i)
		var got [4][]netip.Prefix
		var errs [4]error
		var all sync.WaitGroup
		for j := range got {
			all.Go(func() { got[j], errs[j] = s.Claim(t.Context(), id, cfg) })
		}
		all.Wait()
		must(t, errors.Join(errs[:]...))
		for j := range got {
			if !slices.Equal(got[j], got[0]) {
				t.Fatalf("node %d: %v", i, fmt.Sprint(got))
			}
		}
	}
}
