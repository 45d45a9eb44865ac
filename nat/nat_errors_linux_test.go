package nat

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// An error is a sentence, with nothing behind it that the sentence has said.
func TestErrorsInWords(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	net := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16"), Pinholes: []Pinhole{pinhole("10.88.0.2:80", 0, "web")}}
	web := tcp("203.0.113.1:8080", "10.88.0.2:80", "web")
	if err := gw.AddNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	if err := gw.Publish(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	absent, elsewhere, foreign := web, web, web
	absent.Host, elsewhere.Box, foreign.Owner = ap("203.0.113.1:8081"), ap("10.88.0.3:80"), "db"
	again, other := net, Network{Interface: "br1", Subnets: prefixes("10.88.1.0/24")}
	again.Pinholes = nil
	closed := pinhole("10.88.0.2:81", 0, "web")
	_, expandLink := gw.ExpandLink(t.Context(), "lo", tcp("[::]:8080", "[fd88::2]:80", "web"))
	_, noLink := gw.ExpandLink(t.Context(), "no-such", tcp("0.0.0.0:8080", "10.88.0.2:80", "web"))
	withTable := func(text string) error {
		_, err := Open(t.Context(), foreignTable(t, text), Options{})
		return err
	}
	gone := open(t, netnstest.New(t))
	if err := gone.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		is   error
		text string // without the namespace
	}{
		{gw.Unpublish(t.Context(), absent), os.ErrNotExist, `nat.Unpublish tcp 203.0.113.1:8081 -> 10.88.0.2:80: the port is not published`},
		{gw.Unpublish(t.Context(), elsewhere), os.ErrNotExist, `nat.Unpublish tcp 203.0.113.1:8080 -> 10.88.0.3:80: the host port leads to 10.88.0.2:80`},
		{gw.Unpublish(t.Context(), foreign), os.ErrPermission, `nat.Unpublish tcp 203.0.113.1:8080 -> 10.88.0.2:80: the port belongs to "web", not to "db"`},
		{gw.UnpublishOwner(t.Context(), "db"), os.ErrNotExist, `nat.UnpublishOwner owner "db": the owner has no port published`},
		{gw.Publish(t.Context(), foreign), os.ErrExist, `nat.Publish tcp 203.0.113.1:8080 -> 10.88.0.2:80: the host port is taken: tcp 203.0.113.1:8080 -> 10.88.0.2:80 is published by "web"`},
		{gw.AddNetwork(t.Context(), again), os.ErrExist, `nat.AddNetwork network br0: the interface has a network already`},
		{gw.AddNetwork(t.Context(), other), os.ErrExist, `nat.AddNetwork network br1: the subnet 10.88.1.0/24 overlaps 10.88.0.0/16 of the network br0`},
		{gw.DeleteNetwork(t.Context(), "br1"), os.ErrNotExist, `nat.DeleteNetwork network br1: the interface has no network`},
		{gw.AddPinholes(t.Context(), net.Pinholes[0]), os.ErrExist, `nat.AddPinholes tcp 10.88.0.2:80: tcp 10.88.0.2:80 is opened by "web"`},
		{gw.AddPinholes(t.Context(), pinhole("10.99.0.2:80", 0, "web")), os.ErrNotExist, `nat.AddPinholes tcp 10.99.0.2:80: the address 10.99.0.2 is in no network's subnet`},
		{gw.DeletePinholes(t.Context(), closed), os.ErrNotExist, `nat.DeletePinholes tcp 10.88.0.2:81: the pinhole is not there`},
		{gw.DeletePinholes(t.Context(), pinhole("10.88.0.2:80", 0, "db")), os.ErrPermission, `nat.DeletePinholes tcp 10.88.0.2:80: the pinhole belongs to "web", not to "db"`},
		{expandLink, os.ErrNotExist, `nat.ExpandLink tcp [::]:8080 -> [fd88::2]:80 on link lo: the link has no address that could be used`},
		{noLink, os.ErrNotExist, `nat.ExpandLink tcp 0.0.0.0:8080 -> 10.88.0.2:80 on link no-such: no such device (ENODEV)`},
		{withTable(""), os.ErrExist, `nat.Open table inet boxwire: a table of that name is there and not ours (its comment is "")`},
		{withTable(`comment "boxwire skeleton 99";`), os.ErrExist, `nat.Open table inet boxwire: a table of that name is there from a newer version of this library (its comment is "boxwire skeleton 99", not "` + skeletonComment + `")`},
		{gone.Publish(t.Context(), web), os.ErrNotExist, `nat.Publish tcp 203.0.113.1:8080 -> 10.88.0.2:80: the table inet boxwire is gone: something removed it, and Open installs it again`},
		{gone.Delete(t.Context()), os.ErrNotExist, `nat.Delete table inet boxwire: the table inet boxwire is gone: something removed it, and Open installs it again`},
		{gone.DeleteNetwork(t.Context(), "br0"), os.ErrNotExist, `nat.DeleteNetwork network br0: the table inet boxwire is gone: something removed it, and Open installs it again`},
	} {
		var e *netns.Error
		if !errors.As(c.err, &e) || !errors.Is(c.err, c.is) {
			t.Errorf("%v: is no *netns.Error that is %q", c.err, c.is)
			continue
		}
		if got := strings.Replace(e.Error(), " in netns "+e.NS, "", 1); got != c.text {
			t.Errorf("the error is\n%s\nnot\n%s", got, c.text)
		}
	}
}

// foreignTable is a namespace with a table of our name that something else has made.
func foreignTable(t *testing.T, text string) *netns.NS {
	t.Helper()
	ns := netnstest.New(t)
	loadText(t, ns, "table inet boxwire { "+text+" }")
	return ns
}

// The package's documentation says what a port and a network are in the table.
func TestHowManyElementsAPortAndANetworkAre(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	at := countElements(t, ns)
	record := 0
	if !testutil.KernelAtLeast(6, 17) {
		record = 1 // of the host's switch for IPv6: links cannot be made to forward one by one
	}
	count := func(what string, err error, want int) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		now := countElements(t, ns)
		if now-at != want {
			t.Errorf("%s is %d elements, not %d", what, now-at, want)
		}
		at = now
	}
	udp := tcp("0.0.0.0:8082", "10.88.0.2:8082", "web")
	udp.Proto = UDP
	four := Network{Interface: "br0", Subnets: prefixes("10.88.0.0/16"), Masquerade: true}
	both := Network{Interface: "br1", Subnets: prefixes("10.89.0.0/16", "fd89::/64"), Masquerade: true}
	count("a network of IPv4", gw.AddNetwork(t.Context(), four), 11)
	count("a network of both families", gw.AddNetwork(t.Context(), both), 17+record)
	count("the first port of a number on one address", gw.Publish(t.Context(), tcp("203.0.113.1:8080", "10.88.0.2:80", "web")), 2)
	count("the second port of a number on one address", gw.Publish(t.Context(), tcp("203.0.113.2:8080", "10.88.0.2:80", "web")), 1)
	count("a port on all addresses", gw.Publish(t.Context(), tcp("0.0.0.0:8081", "10.88.0.2:8081", "web")), 1)
	count("a port of UDP on all addresses", gw.Publish(t.Context(), udp), 2)
	count("a range", gw.Publish(t.Context(), ranged(tcp("203.0.113.1:9000", "10.88.0.2:9000", "web"), 9009)), 2)
}

// countElements asks nft how many elements the table's sets and maps have.
func countElements(t *testing.T, ns *netns.NS) (n int) {
	t.Helper()
	var out struct {
		Nftables []map[string]struct {
			Elem []json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(testutil.Run(t, ns, "nft", "-j", "list", "table", "inet", "boxwire")), &out); err != nil {
		t.Fatal(err)
	}
	for _, o := range out.Nftables {
		n += len(o["set"].Elem) + len(o["map"].Elem)
	}
	return n
}
