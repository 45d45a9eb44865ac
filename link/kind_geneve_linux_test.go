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
	want, _ := newLink(&Spec{Name: "g0", Kind: k}, -1, -1)
	k.TTL = 64
	if got, _ := newLink(&Spec{Name: "g0", Kind: k}, -1, -1); !bytes.Equal(got.Body, want.Body) {
		t.Errorf("% x\nwant % x", got.Body, want.Body)
	}
	back := message{zero: true}
	if back.options(&Spec{Kind: k}); back.sent[placeData].has(ttl) {
		t.Errorf("brings back %v", back.names)
	}
	k.TTLInherit = false
	if back.options(&Spec{Kind: k}); !back.sent[placeData].has(ttl) {
		t.Errorf("brings back %v", back.names)
	}
}
