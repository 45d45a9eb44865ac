package route

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// net.ipv6.route.max_size bounds what the kernel remembers of single destinations, not the routes of a
// table: Add needs no words for it.
func TestIPv6RoutesBeyondMaxSize(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	_, err := netns.Do(t.Context(), ns, func(context.Context) (struct{}, error) {
		return struct{}{}, os.WriteFile("/proc/sys/net/ipv6/route/max_size", []byte("8"), 0)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) { // in a user namespace it is not to be had
		t.Fatal(err)
	}
	want := hosts(IPv6, 500)
	if err := Add(t.Context(), ns, want...); err != nil {
		t.Fatal(err)
	}
	if got, err := List(t.Context(), ns, Filter{Family: IPv6, Table: TableMain, Protocol: ProtoStatic}); err != nil || len(got) != len(want) {
		t.Errorf("%d routes, %v", len(got), err)
	}
}
