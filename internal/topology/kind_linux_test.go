package topology

import (
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/rtnl"
)

func TestDetail(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind string
		data []byte
		want string
	}{
		{"vlan", nl.AppendU16(nil, 1, 7), "id 7"},
		{"vlan", nil, ""},
		{"vlan", []byte{1, 2, 3}, ""},
		{"vxlan", nl.AppendAttr(nl.AppendU32(nil, 1, 42), 2, []byte{192, 0, 2, 1}), "id 42 remote 192.0.2.1"},
		{"vxlan", nl.AppendAttr(nl.AppendU32(nil, 1, 42), 2, []byte{0, 0, 0, 0}), "id 42"},
		{"vxlan", nl.AppendAttr(nl.AppendU32(nil, 1, 42), 2, []byte{1}), "id 42"},
		{"macvlan", nl.AppendU32(nil, 1, 4), "mode bridge"},
		{"macvlan", nl.AppendU32(nil, 1, 3), ""},
		{"vrf", nl.AppendU32(nil, 1, 10), "table 10"},
		{"veth", nl.AppendU32(nil, 1, 10), ""},
	} {
		if got := detail(&rtnl.Link{Kind: test.kind, Data: test.data}); got != test.want {
			t.Errorf("a %s of %x is %q, want %q", test.kind, test.data, got, test.want)
		}
	}
}

func TestVLANs(t *testing.T) {
	t.Parallel()
	info := func(flags, id byte) []byte { return nl.AppendAttr(nil, 2, []byte{flags, 0, id, 0}) }
	b := slices.Concat(info(2, 1), info(8, 10), info(16, 20), nl.AppendAttr(nil, 2, []byte{1}), info(0, 30))
	if got, want := vlans(nl.Walk(b)), []string{"1", "10-20", "30"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
