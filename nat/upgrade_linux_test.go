package nat

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
)

// A program with a newer version of the library finds a table of an older one: an
// older skeleton, but what it holds is what users have published.
func TestOpenBuildsAnOlderTableAnewWithAllItHolds(t *testing.T) {
	t.Parallel()
	ns := host(t)
	gw := open(t, ns)
	state := State{
		Networks: []Network{{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Masquerade: true, Isolated: true}},
		Ports: []Port{
			tcp("0.0.0.0:80", "10.88.0.2:80", "web"), tcp("10.1.1.1:81", "10.88.0.2:80", "web"), tcp("10.1.1.2:81", "10.88.0.2:80", "web"),
			ranged(udp("[::]:40000", "[fd88::2]:40000", "rtp"), 40999),
		},
	}
	if err := gw.Sync(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	before := objects(t, ns)

	old := listing(t, ns)
	for _, change := range [][2]string{
		{`comment "` + skeletonComment, `comment "` + commentPrefix + " 1"},
		{"ct status dnat accept", "ct status dnat counter accept"}, // some rules differ
	} {
		if !strings.Contains(old, change[0]) {
			t.Fatalf("the listing lacks %s", change[0])
		}
		old = strings.ReplaceAll(old, change[0], change[1])
	}
	file := filepath.Join(t.TempDir(), "old.nft")
	if err := os.WriteFile(file, []byte("flush ruleset\n"+old), 0o644); err != nil {
		t.Fatal(err)
	}
	load(t, ns, file)
	testutil.Run(t, ns, "nft", "flush map inet boxwire uses4") // which an older version may not have

	again := open(t, ns)
	expectPorts(t, again, state.Ports...)
	expectUses(t, ns)
	if after := objects(t, ns); !reflect.DeepEqual(after, before) {
		t.Errorf("after Open:\n%s", listing(t, ns))
	}
}
