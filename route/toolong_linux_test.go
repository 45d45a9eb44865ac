package route

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// Lists that do not fit into one attribute are refused by the attribute's name,
// before anything is sent: what stands before such a route is not made, either.
func TestTooLongForAMessage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	good := Route{Dst: netip.MustParsePrefix("10.9.0.0/16"), Dev: 1}
	var hops []Hop
	for range 6000 {
		hops = append(hops, Hop{Dev: 1, Weight: 1, Via: netip.MustParseAddr("127.0.0.9")})
	}
	var members []Member
	for i := range 9000 {
		members = append(members, Member{ID: uint32(i + 1), Weight: 1})
	}
	many := Route{Dst: netip.MustParsePrefix("10.8.0.0/16"), Hops: hops}
	raw := Route{Dst: netip.MustParsePrefix("10.8.0.0/16"), Dev: 1, Encap: RawEncap{Kind: 9, Data: make([]byte, 80000)}}
	group := NextHop{ID: 1 << 20, Group: members}
	for what, err := range map[string]error{
		"hops, Add":      Add(ctx, ns, good, many),
		"hops, Replace":  Replace(ctx, ns, good, many),
		"raw, Add":       Add(ctx, ns, good, raw),
		"group, Add":     AddNextHops(ctx, ns, group),
		"group, Replace": ReplaceNextHops(ctx, ns, group),
	} {
		if !errors.Is(err, os.ErrInvalid) || !errors.As(err, new(*netns.Error)) {
			t.Errorf("%s: %v", what, err)
		}
		if strings.HasPrefix(what, "group") && err != nil && !strings.Contains(err.Error(), "NHA_GROUP") {
			t.Errorf("%s does not name the attribute: %v", what, err)
		}
		t.Log(err)
	}
	routes, err := List(ctx, ns, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Dst == good.Dst {
			t.Errorf("%v was made", r)
		}
	}
}
