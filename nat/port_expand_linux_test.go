package nat

import (
	"errors"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestExpandLinkIsTheLinksAddresses(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	gw := open(t, ns)
	for _, a := range []string{"10.1.1.1/24", "10.1.1.2/24", "192.0.2.1/32", "2001:db8::1/64"} {
		testutil.Run(t, ns, "ip", "addr", "add", a, "dev", "up0")
	}
	testutil.Run(t, ns, "ip", "addr", "add", "10.2.2.2/24", "dev", "br0")
	testutil.Run(t, ns, "ip", "addr", "add", "10.3.3.1", "peer", "10.3.3.2", "dev", "up0")
	testutil.Run(t, ns, "ip", "link", "set", "up0", "up") // and it gets a link-local one
	four, err := gw.ExpandLink(t.Context(), "up0", tcp("0.0.0.0:80", "10.0.0.2:80", "web"))
	if err != nil {
		t.Fatal(err)
	}
	six, err := gw.ExpandLink(t.Context(), "up0", tcp("[::]:80", "[fd00::2]:80", "web"))
	if err != nil {
		t.Fatal(err)
	}
	if err := gw.Publish(t.Context(), append(four, six...)...); err != nil {
		t.Fatal(err)
	}
	expectPorts(t, gw, tcp("10.1.1.1:80", "10.0.0.2:80", "web"), tcp("10.1.1.2:80", "10.0.0.2:80", "web"), tcp("10.3.3.1:80", "10.0.0.2:80", "web"),
		tcp("192.0.2.1:80", "10.0.0.2:80", "web"), tcp("[2001:db8::1]:80", "[fd00::2]:80", "web"))
	for link, p := range map[string]Port{"up0p": tcp("0.0.0.0:80", "10.0.0.2:80", "web"), "nosuch0": tcp("0.0.0.0:80", "10.0.0.2:80", "web")} {
		if _, err := gw.ExpandLink(t.Context(), link, p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", link, err)
		}
	}
	if _, err := gw.ExpandLink(t.Context(), "up0", four[0]); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("with an address: %v", err)
	}
}
