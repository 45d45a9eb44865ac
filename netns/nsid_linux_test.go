package netns_test

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// listID returns the ids that `ip netns list-id` prints.
func listID(t *testing.T, ns *netns.NS) (ids []int) {
	t.Helper()
	for _, m := range regexp.MustCompile(`nsid (\d+)`).FindAllStringSubmatch(testutil.Run(t, ns, "ip", "netns", "list-id"), -1) {
		id, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func TestNSID(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns, a, b, c := netnstest.New(t), netnstest.New(t), netnstest.New(t), netnstest.New(t)
	if _, err := ns.NSID(ctx, a); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	if err := ns.AssignNSID(ctx, a, 7); err != nil {
		t.Fatal(err)
	}
	if id, err := ns.NSID(ctx, a); err != nil || id != 7 {
		t.Errorf("assigned 7, got %d, %v", id, err)
	}
	if err := ns.AssignNSID(ctx, b, 7); !errors.Is(err, os.ErrExist) {
		t.Errorf("an id that is taken: %v", err)
	}
	if err := ns.AssignNSID(ctx, a, 8); !errors.Is(err, os.ErrExist) {
		t.Errorf("a namespace that has one: %v", err)
	}
	if err := ns.AssignNSID(ctx, b, -1); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("-1: %v", err)
	}
	chosen, err := ns.EnsureNSID(ctx, b)
	if err != nil || chosen == 7 {
		t.Errorf("the kernel has chosen %d, %v", chosen, err)
	}
	if again, err := ns.EnsureNSID(ctx, b); err != nil || again != chosen {
		t.Errorf("then %d, %v", again, err)
	}
	want := []int{chosen, 7}
	slices.Sort(want)
	ids, err := ns.NSIDs(ctx)
	if err != nil || !slices.Equal(ids, want) || !slices.Equal(listID(t, ns), want) {
		t.Errorf("ids %v, %v; ip prints %v; want %v", ids, err, listID(t, ns), want)
	}
	got, err := ns.OpenNSID(ctx, 7)
	same(t, got, err, a)
	got, err = ns.OpenNSID(ctx, chosen)
	same(t, got, err, b)
	if _, err := ns.OpenNSID(ctx, 4711); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an id that is not assigned: %v", err)
	}
	if ids, err := c.NSIDs(ctx); err != nil || len(ids) != 0 {
		t.Errorf("another namespace has ids %v, %v", ids, err)
	}
	a.Close()
	if _, err := ns.NSID(ctx, a); !errors.Is(err, os.ErrClosed) {
		t.Errorf("of a closed handle: %v", err)
	}
	if _, err := ns.NSID(ctx, nil); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("of no handle: %v", err)
	}
}
