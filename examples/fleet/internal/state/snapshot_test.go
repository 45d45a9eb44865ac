package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// idOf is an ID that ends with n.
func idOf(n int) ID { return ID{0: byte(n >> 8), 1: byte(n), 15: 1} }

// nodeOf is a valid Node with the prefixes.
func nodeOf(n int, name string, list ...netip.Prefix) Node {
	return Node{
		Version: Version, ID: idOf(n), Name: name, Endpoints: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		MTU: 1500, Prefixes: list, Generation: 1,
	}
}

// pairsOf are the pairs of a node and its claims.
func pairsOf(n Node) []Pair {
	list := []Pair{{NodeKey(n.ID), Encode(n)}}
	for _, p := range n.Prefixes {
		list = append(list, Pair{ClaimKey(p), Encode(Claim{Version, n.ID})})
	}
	return list
}

func decodeList(pairs ...Pair) *Snapshot { return Decode(7, slices.Values(pairs)) }

func TestDecodeOfAWholeFleet(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	a := nodeOf(1, "a", prefixes("10.100.1.0/24", "fd99:0:0:1::/64")...)
	b := nodeOf(2, "b", prefixes("10.100.2.0/24", "fd99:0:0:2::/64")...)
	alive := Alive{Version: 1, ID: a.ID, Generation: 3, Instance: idOf(9), Machine: "m", Boot: "b", Pid: 4, Started: 5}
	dead := Dead{Version: 1, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	pairs := slices.Concat([]Pair{{ConfigKey, Encode(cfg)}, {AliveKey(a.ID), Encode(alive)}, {DeadKey(b.ID), Encode(dead)}}, pairsOf(a), pairsOf(b))
	want := &Snapshot{
		Revision: 7, Config: &cfg, Nodes: map[ID]Node{a.ID: a, b.ID: b},
		Claims: map[netip.Prefix]ID{a.Prefixes[0]: a.ID, a.Prefixes[1]: a.ID, b.Prefixes[0]: b.ID, b.Prefixes[1]: b.ID},
		Alive:  map[ID]Alive{a.ID: alive}, Dead: map[ID]Dead{b.ID: dead},
	}
	if got := decodeList(pairs...); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	slices.Reverse(pairs) // the order is of no importance
	if got := decodeList(pairs...); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if got := want.Sorted(); len(got) != 2 || got[0].Name != "a" || got[1].Name != "b" {
		t.Errorf("sorted %v", got)
	}
	if got := want.Name(a.ID); got != "a (00010000)" {
		t.Errorf("name %q", got)
	}
	if got := want.Name(idOf(5)); got != "node "+idOf(5).String() {
		t.Errorf("name %q", got)
	}
}

func TestDecodeSkipsAndNamesWhatIsNotValid(t *testing.T) {
	t.Parallel()
	valid := nodeOf(1, "a", prefixes("10.100.1.0/24")...)
	text := string(Encode(valid))
	node := func(change func(*Node)) string {
		n := valid
		change(&n)
		return string(Encode(n))
	}
	key := NodeKey(valid.ID)
	for _, test := range []struct{ name, key, value, want string }{
		{"an unknown key", "what", "{}", "no key of a fleet"},
		{"an unknown directory", "what/x", "{}", "no key of a fleet"},
		{"an empty key", "", "{}", "no key of a fleet"},
		{"a key below the config", "config/x", string(Encode(DefaultConfig())), "no key of a fleet"},
		{"no JSON", key, "{", "unexpected end"},
		{"nothing", key, "", "unexpected end"},
		{"null", key, "null", "version 0"},
		{"a list", key, "[]", "cannot unmarshal array"},
		{"two values", key, text + text, "after top-level value"},
		{"no version", key, strings.Replace(text, `"version":1,`, "", 1), "version 0"},
		{"a newer version", key, strings.Replace(text, `"version":1`, `"version":2`, 1), "version 2: this program knows 1 to 1"},
		{"a huge value", key, text + strings.Repeat(" ", MaxValue), "want at most 65536"},
		{"a key that is no ID", "node/x", text, `node id "x"`},
		{"a key in capitals", "node/" + strings.ToUpper(idOf(0xabcd).String()), text, "want 32 hexadecimal digits"},
		{"a node in another's key", NodeKey(idOf(3)), text, "the value is of node " + valid.ID.String()},
		{"an alive in another's key", AliveKey(idOf(2)), string(Encode(Alive{Version: 1, ID: valid.ID})), "the value is of node"},
		{"a node without a name", key, node(func(n *Node) { n.Name = "" }), "name"},
		{"a name with a line break", key, node(func(n *Node) { n.Name = "a\nb" }), "name"},
		{"no endpoint", key, node(func(n *Node) { n.Endpoints = nil }), "0 endpoints"},
		{"17 endpoints", key, node(func(n *Node) { n.Endpoints = slices.Repeat(n.Endpoints[:1], 17) }), "17 endpoints"},
		{"loopback as endpoint", key, node(func(n *Node) { n.Endpoints = []netip.Addr{netip.MustParseAddr("127.0.0.1")} }), "endpoint 127.0.0.1"},
		{"link-local as endpoint", key, node(func(n *Node) { n.Endpoints = []netip.Addr{netip.MustParseAddr("fe80::1")} }), "endpoint fe80::1"},
		{"a zone", key, node(func(n *Node) { n.Endpoints = []netip.Addr{netip.MustParseAddr("2001:db8::1%a")} }), "endpoint 2001:db8::1%a"},
		{"no address", key, node(func(n *Node) { n.Endpoints = []netip.Addr{{}} }), "endpoint"},
		{"a small MTU", key, node(func(n *Node) { n.MTU = 575 }), "mtu 575"},
		{"no prefix", key, node(func(n *Node) { n.Prefixes = nil }), "0 prefixes"},
		{"three prefixes", key, node(func(n *Node) { n.Prefixes = slices.Repeat(n.Prefixes, 3) }), "3 prefixes"},
		{"a short public key", key, node(func(n *Node) { n.PublicKey = "AAAA" }), "public key"},
		{"a prefix that is not claimed", key, node(func(n *Node) { n.Prefixes = prefixes("10.100.9.0/24") }), "10.100.9.0/24: not claimed"},
		{"a prefix of another", key, node(func(n *Node) { n.Prefixes = prefixes("10.100.2.0/24") }), "10.100.2.0/24: claimed by b (00020000)"},
		{"a prefix outside the pools", key, node(func(n *Node) { n.Prefixes = prefixes("10.7.7.0/24") }), "10.7.7.0/24: not of the fleet's pools"},
		{"two of one family", key, node(func(n *Node) { n.Prefixes = prefixes("10.100.1.0/24", "10.100.3.0/24") }), "two of one family"},
		{"a claim of no node", "claim/10.100.8.0-24", `{"version":1}`, "no node"},
		{"a claim of another form", "claim/10.100.8.1-24", string(Encode(Claim{1, valid.ID})), "want a key like"},
		{"a config that is not valid", ConfigKey, `{"version":1}`, "no pool"},
		{"a dead without a time", DeadKey(valid.ID), `{"version":1}`, "no time"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			other := nodeOf(2, "b", prefixes("10.100.2.0/24")...)
			pairs := append(pairsOf(other), Pair{ConfigKey, Encode(DefaultConfig())},
				Pair{ClaimKey(valid.Prefixes[0]), Encode(Claim{1, valid.ID})},
				Pair{"claim/10.100.3.0-24", Encode(Claim{1, valid.ID})}, Pair{"claim/10.7.7.0-24", Encode(Claim{1, valid.ID})},
				Pair{test.key, []byte(test.value)})
			got := decodeList(pairs...)
			if len(got.Skipped) != 1 || got.Skipped[0].Key != test.key {
				t.Fatalf("skipped %v: want %q", got.Skipped, test.key)
			}
			err := got.Skipped[0].Err
			if !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v: want %q", err, test.want)
			}
			if len(got.Nodes) != 1 || !got.Nodes[other.ID].Equal(other) || len(got.Alive)+len(got.Dead) != 0 {
				t.Errorf("%+v: want node b alone", got)
			}
			if len(got.Skipped[0].String()) > 500 {
				t.Errorf("a message of %d bytes", len(got.Skipped[0].String()))
			}
		})
	}
}

func TestDecodeIgnoresFieldsThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	n := nodeOf(1, "a", prefixes("10.100.1.0/24")...)
	pairs := pairsOf(n)
	pairs[0].Value = bytes.Replace(pairs[0].Value, []byte("{"), []byte(`{"future":{"x":[1]},`), 1)
	if got := decodeList(pairs...); len(got.Skipped) != 0 || !got.Nodes[n.ID].Equal(n) {
		t.Errorf("%+v", got)
	}
}

// A Mirror that was changed step by step is at every step what Decode makes of the same pairs, and the Snapshots before stay as they
// were.
func TestMirrorIsWhatDecodeMakes(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	a := nodeOf(1, "a", prefixes("10.100.1.0/24", "fd99:0:0:1::/64")...)
	moved := a
	moved.MTU = 9000
	put := func(key string, value []byte) Pair { return Pair{key, value} }
	steps := []Pair{ // a nil value deletes
		put(ConfigKey, Encode(cfg)), pairsOf(a)[0], pairsOf(a)[1], pairsOf(a)[2], put(NodeKey(a.ID), Encode(moved)),
		put(AliveKey(a.ID), Encode(Alive{Version: 1, ID: a.ID})), put(DeadKey(a.ID), Encode(Dead{1, time.Unix(1, 0).UTC()})),
		put("what", []byte("x")), put(NodeKey(a.ID), []byte("garbage")), put(NodeKey(a.ID), Encode(a)),
		put(ClaimKey(a.Prefixes[0]), Encode(Claim{1, idOf(2)})), put(ClaimKey(a.Prefixes[0]), []byte("garbage")), pairsOf(a)[1],
		put(ConfigKey, []byte("garbage")), put(ConfigKey, nil), put("what", nil), put("what", nil), put(AliveKey(a.ID), nil),
		put(ClaimKey(a.Prefixes[1]), nil), put(DeadKey(a.ID), nil), put(NodeKey(a.ID), nil), put("node/x", []byte("{}")), put("node/x", nil),
	}
	m, now := NewMirror(), map[string][]byte{}
	var got, want []*Snapshot
	for i, step := range steps {
		if step.Value == nil {
			m.Delete(step.Key)
			delete(now, step.Key)
		} else {
			m.Put(step)
			now[step.Key] = step.Value
		}
		got = append(got, m.Snapshot(int64(i)))
		want = append(want, Decode(int64(i), func(yield func(Pair) bool) {
			for key, value := range now {
				if !yield(Pair{key, value}) {
					return
				}
			}
		}))
	}
	for i := range steps {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("step %d (%s):\n%+v\nwant\n%+v", i, steps[i].Key, got[i], want[i])
		}
	}
	if m.changed != 0 {
		t.Error("nothing has changed since the last snapshot")
	}
	m.Delete("nobody")
	m.Put(pairsOf(a)[1])
	if m.changed != 0 {
		t.Error("the same value is a change")
	}
}

func TestMirrorReplace(t *testing.T) {
	t.Parallel()
	a, b := nodeOf(1, "a", prefixes("10.100.1.0/24")...), nodeOf(2, "b", prefixes("10.100.2.0/24")...)
	m := NewMirror()
	m.Replace(slices.Values(pairsOf(a)))
	first := m.Snapshot(5)
	m.Replace(slices.Values(pairsOf(a)))
	if m.changed != 0 {
		t.Error("the same pairs are a change")
	}
	m.Replace(slices.Values(pairsOf(b)))
	if got := slices.Collect(maps.Keys(m.Snapshot(3).Nodes)); len(got) != 1 || got[0] != b.ID {
		t.Errorf("nodes %v: want b", got)
	}
	m.Replace(slices.Values([]Pair(nil)))
	if got := m.Snapshot(1); len(got.Nodes)+len(got.Claims) != 0 || got.Revision != 1 {
		t.Errorf("%+v: want nothing", got)
	}
	if len(first.Nodes) != 1 || !first.Nodes[a.ID].Equal(a) {
		t.Errorf("the first snapshot is %+v now", first)
	}
}

func TestMirrorSharesWhatDidNotChange(t *testing.T) {
	t.Parallel()
	m := NewMirror()
	a := nodeOf(1, "a", prefixes("10.100.1.0/24")...)
	m.Replace(slices.Values(pairsOf(a)))
	first := m.Snapshot(1)
	m.Put(Pair{AliveKey(a.ID), Encode(Alive{Version: 1, ID: a.ID})})
	second := m.Snapshot(2)
	same := func(a, b any) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
	if !same(first.Nodes, second.Nodes) || !same(first.Claims, second.Claims) || !same(first.Dead, second.Dead) {
		t.Error("a map in which nothing changed was copied")
	}
	if same(first.Alive, second.Alive) || len(first.Alive) != 0 || len(second.Alive) != 1 {
		t.Errorf("alive %v, then %v", first.Alive, second.Alive)
	}
}

// FuzzDecode has values of all kinds that somebody else has written. Nothing panics, and what is accepted is valid.
func FuzzDecode(f *testing.F) {
	a := nodeOf(1, "a", prefixes("10.100.1.0/24", "fd99:0:0:1::/64")...)
	seeds := append(pairsOf(a), Pair{ConfigKey, Encode(DefaultConfig())}, Pair{AliveKey(a.ID), Encode(Alive{Version: 1, ID: a.ID})},
		Pair{DeadKey(a.ID), Encode(Dead{1, time.Unix(1, 0)})}, Pair{"what", []byte("null")})
	for i, p := range seeds {
		f.Add(p.Key, p.Value, seeds[(i+1)%len(seeds)].Key, seeds[(i+1)%len(seeds)].Value)
	}
	f.Fuzz(func(t *testing.T, key1 string, value1 []byte, key2 string, value2 []byte) {
		pairs := append(pairsOf(a), Pair{key1, value1}, Pair{key2, value2})
		s := decodeList(pairs...)
		for id, n := range s.Nodes {
			if n.ID != id || n.Validate() != nil {
				t.Errorf("node %v: %+v", id, n)
			}
			for _, p := range n.Prefixes {
				if s.Claims[p] != id || s.Config != nil && !s.Config.Contains(p) {
					t.Errorf("node %v has %v", id, p)
				}
			}
		}
		for p, id := range s.Claims {
			if !p.IsValid() || p != p.Masked() || id == (ID{}) {
				t.Errorf("claim %v of %v", p, id)
			}
		}
		if s.Config != nil && s.Config.Validate() != nil {
			t.Errorf("config %+v", s.Config)
		}
		for _, skipped := range s.Skipped {
			if skipped.Err == nil || len(skipped.String()) > 1<<10 {
				t.Errorf("skipped %v", skipped)
			}
		}
		// What was added goes again without a trace.
		m := NewMirror()
		m.Replace(slices.Values(pairs))
		_ = m.Snapshot(7)
		m.Replace(slices.Values(pairsOf(a)))
		if got, want := m.Snapshot(7), decodeList(pairsOf(a)...); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v\nwant %+v", got, want)
		}
	})
}

// BenchmarkMirror has a fleet of 1,000 nodes, of which one changes.
func BenchmarkMirror(b *testing.B) {
	m := NewMirror()
	var nodes []Node
	for i := range 1000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + byte(i>>8), byte(i), 0}), 24)
		nodes = append(nodes, nodeOf(i, fmt.Sprint("node", i), p))
		for _, pair := range pairsOf(nodes[i]) {
			m.Put(pair)
		}
	}
	m.Snapshot(1)
	b.Run("node", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			n := nodes[i%1000]
			n.MTU = 1500 + i%1000
			m.Put(Pair{NodeKey(n.ID), Encode(n)})
			m.Snapshot(1)
		}
	})
	b.Run("alive", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			m.Put(Pair{AliveKey(idOf(1)), Encode(Alive{Version: 1, ID: idOf(1), Pid: i + 1})})
			m.Snapshot(1)
		}
	})
}
