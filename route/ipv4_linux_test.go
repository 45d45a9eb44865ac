package route

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// Where IPv6 is disabled, or the kernel has none, IPv4 works alone, and a route of
// IPv6 fails.
func TestIPv4WithoutIPv6(t *testing.T) {
	t.Parallel()
	ctx, ns := t.Context(), netnstest.New(t)
	if err := ns.SetSysctl(ctx, "net.ipv6.conf.all.disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"link", "add", "v0", "index", "100", "type", "veth", "peer", "name", "v1"},
		{"addr", "add", "10.1.0.2/16", "dev", "v0"}, {"link", "set", "v1", "up"}, {"link", "set", "v0", "up"},
	} {
		testutil.Run(t, ns, "ip", args...)
	}
	way := Default(addr("10.1.0.1"))
	own := Route{Dst: prefix("10.9.0.0/16"), Via: addr("10.1.0.3"), Protocol: 77}
	if err := Add(ctx, ns, way); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := Sync(ctx, ns, 77, own); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Lookup(ctx, ns, Query{Dst: addr("10.9.9.9")}); err != nil || got.Via != own.Via {
		t.Errorf("Lookup: %v, %v", got, err)
	}
	if routes, err := List(ctx, ns, Filter{Table: TableMain}); err != nil || len(routes) < 3 {
		t.Errorf("List: %v, %v", routes, err)
	}
	if rules, err := ListRules(ctx, ns, 0); err != nil || len(rules) < 3 {
		t.Errorf("ListRules: %v, %v", rules, err)
	}
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	for e, err := range Watch(watched, ns, Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == EventSynced {
			break
		}
	}
	if err := Delete(ctx, ns, way); err != nil {
		t.Error(err)
	}
	if got := ipRoutes(t, ns, TableMain); len(got) != 1 || got[0]["gateway"] != "10.1.0.3" {
		t.Errorf("ip shows %v", got)
	}
	if err := Add(ctx, ns, Route{Dst: prefix("fd09::/64"), Dev: 100}); err == nil {
		t.Error("a route of IPv6 was added without IPv6")
	}
}
