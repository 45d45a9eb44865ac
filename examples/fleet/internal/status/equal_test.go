package status

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// Each field counts: one that is new and forgotten in Equal fails here.
func TestEqualLooksAtEveryField(t *testing.T) {
	t.Parallel()
	full := Peer{
		ID: state.ID{1}, Name: "b", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.100.1.0/24")},
		Endpoint: netip.MustParseAddr("192.0.2.1"), Mode: state.Tunnel, MTU: 1464, Alive: true, Down: true, Problem: "none",
	}
	whole := State{
		Version: 1, Fleet: "lab", ID: state.ID{2}, Name: "a", Prefixes: full.Prefixes, Pools: full.Prefixes, Link: "fl0", MTU: 1464,
		Mode: state.Auto, Ready: true, Peers: []Peer{full},
	}
	if !full.Equal(full) || !whole.Equal(whole) {
		t.Error("not equal to itself")
	}
	for i := range reflect.TypeFor[Peer]().NumField() {
		other := full
		f := reflect.ValueOf(&other).Elem().Field(i)
		if f.IsZero() {
			t.Fatalf("the test does not fill in Peer.%s", reflect.TypeFor[Peer]().Field(i).Name)
		}
		f.SetZero()
		if full.Equal(other) || whole.Equal(State{Peers: []Peer{other}}) {
			t.Errorf("Peer.%s does not count", reflect.TypeFor[Peer]().Field(i).Name)
		}
	}
	for i := range reflect.TypeFor[State]().NumField() {
		other := whole
		f := reflect.ValueOf(&other).Elem().Field(i)
		if f.IsZero() {
			t.Fatalf("the test does not fill in State.%s", reflect.TypeFor[State]().Field(i).Name)
		}
		f.SetZero()
		if whole.Equal(other) {
			t.Errorf("State.%s does not count", reflect.TypeFor[State]().Field(i).Name)
		}
	}
}
