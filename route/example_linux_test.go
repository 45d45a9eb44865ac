package route

import (
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
)

// What the examples show holds: a second uplink, weights and drops.
func TestSecondUplink(t *testing.T) {
	t.Parallel()
	ns := box(t)
	testutil.Run(t, ns, "ip", "addr", "add", "198.51.100.7/24", "dev", "v0")
	if err := Add(t.Context(), ns, Default(addr("10.1.0.1"))); err != nil {
		t.Fatal(err)
	}
	out := Default(addr("198.51.100.1"))
	out.Table = 201
	rule := Rule{From: prefix("198.51.100.7/32"), Table: 201, Priority: 1000}
	for i := range 2 {
		did, err := Sync(t.Context(), ns, 201, out)
		if err != nil || did.Added != 1-i {
			t.Errorf("routes: %+v, %v", did, err)
		}
		if did, err = SyncRules(t.Context(), ns, 201, rule); err != nil || did.Added != 1-i {
			t.Errorf("rules: %+v, %v", did, err)
		}
	}
	for src, via := range map[string]string{"198.51.100.7": "198.51.100.1", "10.1.0.2": "10.1.0.1"} {
		var got []struct{ Gateway string }
		testutil.JSON(t, ns, &got, "ip", "-j", "route", "get", "192.0.2.1", "from", src)
		if len(got) != 1 || got[0].Gateway != via {
			t.Errorf("from %s by %v, want %s", src, got, via)
		}
	}
}
