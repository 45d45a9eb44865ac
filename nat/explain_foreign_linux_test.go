package nat

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// With ForeignOnly, Explain names what other tables do and nothing else: not that the port is not published, nor
// that the table is damaged.
func TestExplainForeignOnly(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	d := newDockerHost(t)
	look := func(host, box string) Causes {
		t.Helper()
		port := Port{Proto: TCP, Host: netip.MustParseAddrPort(host), Box: netip.MustParseAddrPort(box)}
		causes, err := d.gw.Explain(t.Context(), port, Hints{ForeignOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		return causes
	}
	both := [][2]string{{"0.0.0.0:9", "10.88.0.2:9"}, {"[::]:9", "[fd88::2]:9"}}
	testutil.Run(t, d.host, "nft", "flush chain inet boxwire to_box; table bridge other { chain c { type filter hook forward priority 0; policy drop; }; }")
	for _, at := range both {
		if causes := look(at[0], at[1]); len(causes) != 0 {
			t.Errorf("%s: %v", at[0], causes)
		}
	}
	testutil.Run(t, d.host, "nft", `table inet other { chain user { drop; }; chain forward { type filter hook forward priority 0; policy accept; jump user; }; }`)
	for _, at := range both {
		causes := look(at[0], at[1])
		if len(causes) != 1 || causes[0].Kind != CauseForeignDrop || !causes[0].Certain || !strings.Contains(causes[0].Text, "chain inet other user") {
			t.Errorf("%s: %v", at[0], causes)
		}
	}
	testutil.Run(t, d.host, "nft", `delete table inet other; table ip other { chain pre { type nat hook prerouting priority -110; tcp dport 9 dnat to 10.88.0.3; }; }`)
	kinds := []CauseKind{}
	for _, c := range look(both[0][0], both[0][1]) {
		kinds = append(kinds, c.Kind)
	}
	if !slices.Equal(kinds, []CauseKind{CauseForeignDNAT}) {
		t.Errorf("with a DNAT of another table: %v", kinds)
	}
	_, err := d.gw.Explain(t.Context(), Port{Proto: TCP, Host: netip.MustParseAddrPort(both[0][0])}, Hints{ForeignOnly: true})
	if !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), "the box address is missing") {
		t.Errorf("without the box: %v", err)
	}
}
