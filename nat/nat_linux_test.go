package nat

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func open(t testing.TB, ns *netns.NS) *NAT {
	t.Helper()
	return openWith(t, ns, Options{})
}

// openWith opens a table until the test is over.
func openWith(t testing.TB, ns *netns.NS, opts Options) *NAT {
	t.Helper()
	gw, err := Open(t.Context(), ns, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gw.Close() }) // gives back the ports that it holds
	return gw
}

var comment = regexp.MustCompile(`comment "boxwire skeleton[^"]*"`)

func listing(t testing.TB, ns *netns.NS) string {
	t.Helper()
	return testutil.Run(t, ns, "nft", "list", "table", "inet", "boxwire")
}

// objects is nft's JSON of the table without handles, numbers of sets, version and what counters have
// counted: a box sends by itself now and then.
func objects(t testing.TB, ns *netns.NS) any {
	t.Helper()
	var v any
	out := testutil.Run(t, ns, "nft", "-j", "list", "table", "inet", "boxwire")
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	strip(v)
	return v
}

func strip(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "handle")
		delete(v, "metainfo")
		if c, ok := v["counter"].(map[string]any); ok {
			delete(c, "packets")
			delete(c, "bytes")
		}
		for _, x := range v {
			strip(x)
		}
	case []any:
		for _, x := range v {
			strip(x)
		}
	}
}

func TestSkeletonIsWhatNftLoadsFromTheFile(t *testing.T) {
	t.Parallel()
	theirs, ours := netnstest.New(t), netnstest.New(t)
	testutil.LoadNFT(t, theirs, "testdata/skeleton.nft")
	open(t, ours)
	want := comment.ReplaceAllString(listing(t, theirs), "comment")
	got := comment.ReplaceAllString(listing(t, ours), "comment")
	if got != want {
		w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
		for i := range min(len(w), len(g)) {
			if w[i] != g[i] {
				t.Fatalf("line %d differs:\nnft -f: %s\nOpen:   %s", i+1, w[i], g[i])
			}
		}
		t.Fatalf("the listings have %d and %d lines", len(w), len(g))
	}
	if w, g := objects(t, theirs), objects(t, ours); !reflect.DeepEqual(w, g) {
		a, _ := json.Marshal(w)
		b, _ := json.Marshal(g)
		t.Errorf("nft -j differs:\nnft -f: %s\nOpen:   %s", a, b)
	}
}

func TestOpenFindsItsTableAndLeavesIt(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	if err := gw.Publish(t.Context(), tcp("0.0.0.0:80", "10.0.0.2:80", "web")); err != nil {
		t.Fatal(err)
	}
	before := listing(t, ns)
	again := open(t, ns)
	if got := listing(t, ns); got != before {
		t.Errorf("Open changed the table:\n%s", got)
	}
	ports, err := again.ListPorts(t.Context())
	if err != nil || len(ports) != 1 {
		t.Errorf("List: %v, %v", ports, err)
	}
}

func TestOpenRefusesATableOfSomebodyElse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{"table inet boxwire { }", "not ours"},
		{`table inet boxwire { comment "mine"; }`, "not ours"},
		{`table inet boxwire { comment "boxwire skeleton 99"; }`, "newer version"},
	} {
		ns := netnstest.New(t)
		testutil.Run(t, ns, "nft", c.text)
		_, err := Open(t.Context(), ns, Options{})
		if !errors.Is(err, os.ErrExist) || !strings.Contains(fmt.Sprint(err), c.want) {
			t.Errorf("%s: %v", c.text, err)
		}
		if _, err := Open(t.Context(), ns, Options{Name: "other"}); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenAtTheSameTime(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := Open(t.Context(), ns, Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestDeleteLeavesNothing(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	if err := gw.Publish(t.Context(), tcp("0.0.0.0:80", "10.0.0.2:80", "web")); err != nil {
		t.Fatal(err)
	}
	if err := gw.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := testutil.Run(t, ns, "nft", "list", "ruleset"); strings.TrimSpace(out) != "" {
		t.Errorf("left behind:\n%s", out)
	}
	if err := gw.Delete(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second Delete: %v", err)
	}
}

func TestATableGoneUnderneathIsSaid(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "ip", "link", "add", "br0", "type", "bridge")
	gw := open(t, ns)
	testutil.Run(t, ns, "nft", "flush", "ruleset")
	p := tcp("0.0.0.0:80", "10.0.0.2:80", "web")
	_, listErr := gw.ListPorts(t.Context())
	for name, err := range map[string]error{
		"Publish":       gw.Publish(t.Context(), p),
		"Publish one":   gw.Publish(t.Context(), tcp("10.1.1.1:80", "10.0.0.2:80", "web")),
		"Unpublish":     gw.Unpublish(t.Context(), p),
		"ListPorts":     listErr,
		"AddNetwork":    gw.AddNetwork(t.Context(), Network{Interface: "br0", Subnets: prefixes("10.0.0.0/8")}),
		"DeleteNetwork": gw.DeleteNetwork(t.Context(), "br0"),
		"Delete":        gw.Delete(t.Context()),
	} {
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(fmt.Sprint(err), "table inet boxwire is gone") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAClosedNamespaceIsErrClosed(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	ns.Close()
	if _, err := gw.ListPorts(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("List: %v", err)
	}
	if _, err := Open(t.Context(), ns, Options{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Open: %v", err)
	}
}

func TestLoopbackLinksAreNamedInTheTable(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	open(t, ns)
	with := func(links ...string) *NAT {
		t.Helper()
		gw, err := Open(t.Context(), ns, Options{LoopbackLinks: links})
		if err != nil {
			t.Fatal(err)
		}
		return gw
	}
	with("loopback0")
	gw := with("loopback0", "loopback1")
	want := `"loopback0",`
	check := func() {
		t.Helper()
		if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", "lo_ok"); !strings.Contains(out, want) || !strings.Contains(out, `"loopback1"`) {
			t.Error(out)
		}
	}
	check()
	testutil.Run(t, ns, "nft", "flush", "ruleset")
	if err := gw.Sync(t.Context(), State{}); err != nil {
		t.Fatal(err)
	}
	check()
	if _, err := Open(t.Context(), ns, Options{LoopbackLinks: []string{"a b"}}); !errors.Is(err, os.ErrInvalid) {
		t.Error(err)
	}
}
