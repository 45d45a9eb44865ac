package nat

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestOpeningsAreElementsWithTheirOwner(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	err := gw.AddNetwork(t.Context(), Network{
		Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"),
		Openings: []Opening{opening("10.88.0.2:80", 0, "web")},
	})
	if err != nil {
		t.Fatal(err)
	}
	rng, six := opening("10.88.0.2:8000", 8010, "web"), opening("[fd88::2]:80", 80, "six")
	if err := gw.AddOpening(t.Context(), rng, six); err != nil {
		t.Fatal(err)
	}
	for set, want := range map[string]string{
		"route4": `10.88.0.2 . tcp . 80 comment "web",`, "route6": `fd88::2 . tcp . 80 comment "six"`,
	} {
		if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", set); !strings.Contains(out, want) {
			t.Errorf("%s lacks %s: %s", set, want, out)
		}
	}
	if out := listing(t, ns); !strings.Contains(out, `10.88.0.2 . tcp . 8000-8010 comment "web"`) {
		t.Errorf("the range is not listed: %s", out)
	}
	before := listing(t, ns)
	free := opening("10.88.0.3:80", 0, "web")
	for _, c := range []struct {
		o    Opening
		want error
		text string
	}{
		{opening("10.88.0.2:80", 0, "web"), os.ErrExist, `tcp 10.88.0.2:80 is opened by "web"`},
		{opening("10.88.0.2:8005", 0, "x"), os.ErrExist, `tcp 10.88.0.2:8000-8010 is opened by "web"`},
		{opening("10.99.0.2:80", 0, "x"), os.ErrNotExist, "no network's subnet"},
		{opening("10.88.0.2:90", 80, "x"), os.ErrInvalid, "below the first"},
	} {
		err := gw.AddOpening(t.Context(), free, c.o)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("AddOpening %v: %v, want %v with %s", c.o, err, c.want, c.text)
		}
	}
	other := rng
	other.Owner = "x"
	for _, c := range []struct {
		o    Opening
		want error
	}{
		{other, os.ErrPermission}, {free, os.ErrNotExist}, {opening("10.88.0.2:8000", 0, "web"), os.ErrNotExist},
	} {
		if err := gw.RemoveOpening(t.Context(), six, c.o); !errors.Is(err, c.want) {
			t.Errorf("RemoveOpening %v: %v, want %v", c.o, err, c.want)
		}
	}
	if got := listing(t, ns); got != before {
		t.Errorf("refused calls changed:\n%s", got)
	}
	if err := gw.RemoveOpening(t.Context(), rng, six); err != nil {
		t.Fatal(err)
	}
	if err := gw.RemoveNetwork(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	if out := listing(t, ns); strings.Contains(out, "10.88.0.2") {
		t.Errorf("RemoveNetwork left an opening:\n%s", out)
	}
}
