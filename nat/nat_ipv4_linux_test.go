package nat

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// Where IPv6 is disabled, or the kernel has none, IPv4 works alone, and what needs
// IPv6 says so.
func TestIPv4WithoutIPv6(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, box, outside := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	for _, ns := range []*netns.NS{host, box, outside} {
		if err := ns.SetSysctl(ctx, "net.ipv6.conf.all.disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for _, end := range []struct {
		ns           *netns.NS
		port, addr   string
		peer, router string
	}{
		{box, "box0", "10.88.0.1/16", "10.88.0.2/16", "10.88.0.1"},
		{outside, "up0", "203.0.113.1/24", "203.0.113.9/24", "203.0.113.1"},
	} {
		testutil.Run(t, host, "ip", "link", "add", end.port, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(standIn(t, end.ns)))
		ip(t, host, "link set "+end.port+" up\naddr add "+end.addr+" dev "+end.port)
		ip(t, end.ns, "link set eth0 up\naddr add "+end.peer+" dev eth0\nroute add default via "+end.router)
	}
	gw := open(t, host)
	four := Network{Interface: "box0", Subnets: prefixes("10.88.0.0/16"), Masquerade: true}
	web := tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	dns := Port{Proto: UDP, Host: ap("203.0.113.1:5300"), Box: ap("10.88.0.2:53"), Owner: "web"}
	local := tcp("127.0.0.1:9090", "10.88.0.2:80", "web")
	if err := errors.Join(gw.AddNetwork(ctx, four), gw.Publish(ctx, web, dns, local), gw.SetNetwork(ctx, four)); err != nil {
		t.Fatal(err)
	}
	serve(t, box, "0.0.0.0:80")
	serve(t, outside, "0.0.0.0:80")
	for _, c := range []struct {
		from       *netns.NS
		addr, want string
	}{
		{outside, "203.0.113.1:8080", "203.0.113.9"},
		{host, "127.0.0.1:9090", "10.88.0.1"},
		{box, "203.0.113.9:80", "203.0.113.1"},
		{box, "203.0.113.1:8080", "10.88.0.1"},
	} {
		if got, err := ask(t, c.from, c.addr); got != c.want || err != nil {
			t.Errorf("%s: the server saw %q, %v, want %s", c.addr, got, err, c.want)
		}
	}
	state := State{Networks: []Network{four}, Ports: []Port{web, local}}
	if err := errors.Join(gw.Sync(ctx, state), Check(ctx, host, "", state)); err != nil {
		t.Error(err)
	}
	if causes, err := gw.Explain(ctx, web, Hints{Box: box}); err != nil || len(causes) != 0 {
		t.Errorf("Explain: %v, %v", causes, err)
	}
	if kernel.HasIPv6() {
		if err := gw.Publish(ctx, tcp("[::]:8081", "[fd88::2]:80", "web")); err != nil {
			t.Errorf("a port of IPv6, which a link may have later: %v", err)
		}
	} else {
		six := Network{Interface: "box1", Subnets: prefixes("fd88::/64")}
		for what, err := range map[string]error{
			"Publish":    gw.Publish(ctx, tcp("[::]:8081", "[fd88::2]:80", "web")),
			"Sync":       gw.Sync(ctx, State{Ports: []Port{tcp("[::]:8081", "[fd88::2]:80", "web")}}),
			"AddNetwork": gw.AddNetwork(ctx, six),
		} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if err := errors.Join(gw.Unpublish(ctx, local), gw.DeleteNetwork(ctx, "box0"), gw.Delete(ctx)); err != nil {
		t.Error(err)
	}
}
