package nat

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
)

// A model of the table's lookups: it finds the element of a new connection as the rules of
// addPolicies do.
type lookupModel map[string]nft.Verdict

func (m lookupModel) allow(box netip.Addr, t target) bool {
	for c := range classes {
		k := portKey{class: c, proto: t.proto, port: t.port}
		switch c {
		case block64:
			k.port &^= 63
		case eachPort:
			k.port = 0
		case eachProto:
			k = portKey{class: c}
		}
		for _, bits := range lengths(box.Is6()) {
			p, _ := t.peer.Prefix(bits)
			if v, ok := m[string(ruleKey(box.AsSlice(), k, p))]; ok {
				return v == nft.VerdictReturn
			}
		}
	}
	return false
}

// randomRules returns rules over few addresses and ports, so that they meet.
func randomRules(r *rand.Rand, v6 bool) *Rules {
	rs := new(Rules)
	for range r.IntN(6) {
		rule := Rule{Proto: []Proto{0, TCP, UDP, ICMP, 47}[r.IntN(5)]}
		if rule.Proto.check() == nil && r.IntN(3) > 0 {
			rule.Port = uint16(r.IntN(300) + 1)
			if r.IntN(2) == 0 {
				rule.PortLast = rule.Port + uint16(r.IntN(300))
			}
		}
		rule.Peer = randomPrefix(r, v6, 0)
		if r.IntN(2) == 0 {
			rule.Except = disjoint(r, rule.Peer, v6)
		}
		rs.Allow = append(rs.Allow, rule)
	}
	return rs
}

// randomPrefix returns a prefix with few different addresses, longer than more bits.
func randomPrefix(r *rand.Rand, v6 bool, more int) netip.Prefix {
	a := randomPeer(r, v6)
	bits := more + r.IntN(a.BitLen()-more+1)
	if v6 && bits%8 != 0 && bits%8 < 4 { // pieces of a length far from the next are many
		bits = (bits + 7) &^ 7
	}
	p, _ := a.Prefix(bits)
	return p
}

func randomPeer(r *rand.Rand, v6 bool) netip.Addr {
	b := []byte{10, byte(r.IntN(2)), byte(r.IntN(3)), byte(r.IntN(4))}
	if v6 {
		b = []byte{0xfd, 0x88, 0, byte(r.IntN(2)), 0, 0, 0, byte(r.IntN(2)), 15: byte(r.IntN(4))}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// disjoint returns exceptions of a peer.
func disjoint(r *rand.Rand, peer netip.Prefix, v6 bool) (all []netip.Prefix) {
	if peer.IsSingleIP() {
		return nil
	}
	for range r.IntN(3) {
		e := randomPrefix(r, v6, peer.Bits()+1)
		if peer.Contains(e.Addr()) && !slices.ContainsFunc(all, e.Overlaps) {
			all = append(all, e)
		}
	}
	return all
}

// What the elements of a policy allow is what its rules say, for every connection.
func TestElementsAllowWhatTheRulesSay(t *testing.T) {
	t.Parallel()
	const connections = 400
	for seed := range uint64(stress(40, 400, 4000)) {
		r := rand.New(rand.NewPCG(seed, 16))
		v6 := seed%2 == 1
		box := netip.MustParseAddr([]string{"10.88.0.2", "fd88::2"}[seed%2])
		p, err := Policy{Box: []netip.Addr{box}, Owner: "test", Egress: randomRules(r, v6)}.checked()
		if err != nil {
			t.Fatal(err)
		}
		items, err := p.policyItems(box)
		if err != nil {
			t.Fatal(err)
		}
		m := make(lookupModel)
		for _, it := range items {
			if it.set == familyOf(box).out.rules {
				m[string(it.elem.Key)] = it.elem.Verdict
			}
		}
		for range connections {
			c := target{peer: randomPeer(r, v6), proto: []uint8{6, 17, 1, 47, 58, 132}[r.IntN(6)]}
			if Proto(c.proto).check() == nil {
				c.port = uint16(r.IntN(640))
			}
			if got, want := m.allow(box, c), p.Egress.allow(c); got != want {
				t.Fatalf("seed %d: %+v: the elements say %v, the rules %v:\n%v", seed, c, got, want, p.Egress.Allow)
			}
		}
	}
}

// A policy comes back from its record.
func TestRecordsOfPolicies(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 17))
		p := Policy{Box: addrs("10.88.0.2", "fd88::2"), Owner: `an owner | with \ signs, ä`, Refuse: seed%2 == 0}
		if seed%3 > 0 {
			p.Egress = randomRules(r, false)
			p.Egress.Allow = append(p.Egress.Allow, Rule{Host: true, Proto: UDP, Port: 53})
		}
		if seed%3 < 2 {
			p.Ingress = randomRules(r, true)
		}
		p, err := p.checked()
		if err != nil {
			t.Fatal(err)
		}
		var items []item
		for _, a := range p.Box {
			of, err := p.policyItems(a)
			if err != nil {
				t.Fatal(err)
			}
			items = append(items, of...)
		}
		r.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
		all, err := policiesOf(items)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range p.Box {
			if got := all[a]; got.record() != p.record() || got.Owner != p.Owner || got.Refuse != p.Refuse {
				t.Fatalf("seed %d: %v is read as\n%v\nwant\n%v", seed, a, got.record(), p.record())
			}
		}
		if list := all.list(); len(list) != 1 {
			t.Errorf("listed: %v", list)
		}
	}
}

// Each element of a rule is for other packets: no two have the same key.
func TestNoTwoElementsOfAPolicyAreForOnePacket(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 18))
		p := Policy{Box: addrs("10.88.0.2"), Owner: "test", Egress: randomRules(r, false), Ingress: randomRules(r, false)}
		items, err := p.policyItems(p.Box[0])
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[setKey]bool)
		for _, it := range items {
			if seen[it.setKey()] {
				t.Fatalf("seed %d: set %s has the key %x twice", seed, it.set, it.elem.Key)
			}
			seen[it.setKey()] = true
		}
	}
}

// Rules that take too many elements are refused before any is made.
func TestTooManyElementsAreRefusedBeforeTheyAreMade(t *testing.T) {
	box := netip.MustParseAddr("10.88.0.2")
	for name, rule := range map[string]Rule{
		"ranges of ports":       {Proto: TCP, Port: 2, PortLast: 60000},
		"odd lengths and ports": {Proto: TCP, Port: 2, PortLast: 100, Peer: netip.MustParsePrefix("128.0.0.0/1")},
		"odd exceptions":        {Proto: TCP, Port: 2, PortLast: 100, Peer: netip.MustParsePrefix("0.0.0.0/0"), Except: []netip.Prefix{netip.MustParsePrefix("128.0.0.0/1")}},
	} {
		p := Policy{Box: []netip.Addr{box}, Owner: "test", Egress: &Rules{Allow: slices.Repeat([]Rule{rule}, MaxRules)}}
		if n := allocs.PerRun(t, 1, func() {
			if _, err := p.policyItems(box); !errors.Is(err, os.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}); n > 100 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func FuzzRecordOfAPolicy(f *testing.F) {
	f.Add("web|10.88.0.2|out|>tcp 203.0.113.0/24 port 443|in", []byte{10, 88, 0, 2, 0, 0, 0, 0})
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, text string, key []byte) {
		ps, err := policiesOf([]item{{"policy4", nft.Element{Key: key, Comment: text}}})
		if err != nil {
			return
		}
		for a, p := range ps {
			if binary.NativeEndian.Uint32(key[4:]) == 0 && len(p.Box) == 0 {
				t.Errorf("%v: %q has no address", a, text)
			}
			if again, err := parseRecord(p.record()); err != nil || again.record() != p.record() {
				t.Errorf("%q is written as %q, which is read as %q, %v", text, p.record(), again.record(), err)
			}
		}
	})
}
