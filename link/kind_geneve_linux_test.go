package link

import (
	"bytes"
	"testing"
)

// With TTL_INHERIT the kernel ignores a TTL, and a TTL alone ends the inheritance: there
// is none beside it, neither for a new link nor to bring back what was.
func TestGeneveInheritsItsTTL(t *testing.T) {
	t.Parallel()
	const ttl = 3 // IFLA_GENEVE_TTL
	k := Geneve{ID: new(uint32(5)), Remote: addr("10.0.0.1"), TTLInherit: true}
	want := made(&Spec{Name: "g0", Kind: k}, -1)
	k.TTL = 64
	if got := made(&Spec{Name: "g0", Kind: k}, -1); !bytes.Equal(got.Body, want.Body) {
		t.Errorf("% x\nwant % x", got.Body, want.Body)
	}
	back, o := message{zero: true}, declare(k)
	if back.options(&o); back.sent[placeData].has(ttl) {
		t.Error("brings back a TTL")
	}
	k.TTLInherit = false
	o = declare(k)
	if back.options(&o); !back.sent[placeData].has(ttl) {
		t.Error("does not bring back the TTL")
	}
}
