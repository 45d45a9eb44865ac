package nat

import (
	"context"
	"errors"
	"os"
	"reflect"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// The tables of this library are those whose comment says so, of every version.
func TestListTables(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	if all, err := ListTables(t.Context(), ns); err != nil || len(all) != 0 {
		t.Errorf("a namespace without tables: %v, %v", all, err)
	}
	openWith(t, ns, Options{Name: "shop"})
	open(t, ns)
	for _, table := range []string{
		`table inet agent { comment "boxwire skeleton 99"; }`,
		`table inet attic { comment "boxwire skeleton 4"; }`,
		`table inet filter { }`,
		`table inet theirs { comment "boxwire skeleton"; }`,
		`table inet mine { comment "boxwire skeleton x"; }`,
		`table inet other { comment "boxwire skeletons 7"; }`,
		`table ip boxwire4 { comment "boxwire skeleton 7"; }`,
		`table bridge boxwire { comment "boxwire skeleton 7"; }`,
	} {
		testutil.Run(t, ns, "nft", table)
	}
	before := testutil.Run(t, ns, "nft", "list", "ruleset")
	want := []Table{{Name: "agent", Newer: true}, {Name: "attic", Older: true}, {Name: "boxwire"}, {Name: "shop"}}
	if all, err := ListTables(t.Context(), ns); err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("%v, %v; want %v", all, err, want)
	}
	if after := testutil.Run(t, ns, "nft", "list", "ruleset"); after != before {
		t.Errorf("the ruleset was\n%s\nand is\n%s", before, after)
	}

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ListTables(canceled, ns); !errors.Is(err, context.Canceled) {
		t.Errorf("with a canceled context: %v", err)
	}
	closed := netnstest.New(t)
	closed.Close()
	if _, err := ListTables(t.Context(), closed); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed handle: %v", err)
	}
}
