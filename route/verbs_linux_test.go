package route

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestChangeWantsTheRoute(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	for _, r := range []Route{To(prefix("10.9.0.0/16"), addr("10.1.0.1")), To(prefix("fd09::/64"), addr("fd01::1"))} {
		if err := Change(t.Context(), ns, r); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v, not there: %v", r, err)
		}
		if err := Add(t.Context(), ns, r); err != nil {
			t.Fatal(err)
		}
		r.Via = r.Via.Next().Next()
		if err := Change(t.Context(), ns, r); err != nil {
			t.Error(err)
		}
	}
	got := ipRoutes(t, ns, TableMain)
	if len(got) != 2 || got[0]["gateway"] != "10.1.0.3" || got[1]["gateway"] != "fd01::3" {
		t.Errorf("ip shows %v", got)
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	for _, r := range []Route{To(prefix("10.9.0.0/16"), addr("10.1.0.1")), To(prefix("fd09::/64"), addr("fd01::1"))} {
		for range 2 {
			if err := Append(t.Context(), ns, r); err != nil {
				t.Fatal(err)
			}
			r.Via = r.Via.Next().Next()
		}
	}
	got := ipRoutes(t, ns, TableMain)
	if len(got) != 3 || got[0]["gateway"] != "10.1.0.1" || got[1]["gateway"] != "10.1.0.3" || !holds(got[2], parseJSON(t, `{"dst":"fd09::/64","nexthops":[{"gateway":"fd01::1"},{"gateway":"fd01::3"}]}`)) {
		t.Errorf("ip shows %v", got)
	}
	if err := Append(t.Context(), ns, To(prefix("10.9.0.0/16"), addr("10.1.0.3"))); !errors.Is(err, os.ErrExist) {
		t.Errorf("one that is there: %v", err)
	}
	// The first of several goes first; one that is distinct goes alone.
	if err := Delete(t.Context(), ns, To(prefix("10.9.0.0/16"), addr("10.1.0.3")), To(prefix("fd09::/64"), addr("fd01::1"))); err != nil {
		t.Fatal(err)
	}
	got = ipRoutes(t, ns, TableMain)
	if len(got) != 2 || got[0]["gateway"] != "10.1.0.1" || got[1]["gateway"] != "fd01::3" {
		t.Errorf("after Delete ip shows %v", got)
	}
}

// A gateway that no route leads to is the kernel's to refuse, in its own words.
func TestGatewayOffLink(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	for _, r := range []Route{To(prefix("10.9.0.0/16"), addr("172.31.0.1")), To(prefix("fd09::/64"), addr("fd99::1"))} {
		err := Add(t.Context(), ns, r)
		if err == nil || !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("%v: %v", r, err)
		}
		r.Dev, r.OnLink = 100, true
		if err := Add(t.Context(), ns, r); err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}
}
