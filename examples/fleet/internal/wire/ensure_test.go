package wire

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
)

// shown is the tunnel link as ip shows it.
type shown struct {
	Index    int    `json:"ifindex"`
	MTU      int    `json:"mtu"`
	Alias    string `json:"ifalias"`
	LinkInfo struct {
		Kind string `json:"info_kind"`
		Data struct {
			Port int `json:"port"`
		} `json:"info_data"`
	} `json:"linkinfo"`
	Flags []string `json:"flags"`
	Addrs []struct {
		Local string `json:"local"`
		Len   int    `json:"prefixlen"`
	} `json:"addr_info"`
}

func (s shown) addrs() string {
	var all []string
	for _, a := range s.Addrs {
		p, _ := netip.MustParseAddr(a.Local).Prefix(a.Len)
		all = append(all, p.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func show(t testing.TB, h *host) shown {
	t.Helper()
	var all []shown
	testutil.JSON(t, h.ns, &all, "ip", "-d", "-j", "address", "show", "dev", "fl0")
	if len(all) == 0 {
		t.Fatal("there is no fl0")
	}
	return all[0]
}

func TestTheTunnelLink(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode state.Mode
		u    underlays
		kind string
		mtu  int
	}{
		{state.Tunnel, underlays{v4: true}, "vxlan", 1464},
		{state.Auto, underlays{v6: true}, "vxlan", 1444},
		{state.Direct, underlays{v4: true}, "bridge", 1500},
	} {
		t.Run(string(c.mode), func(t *testing.T) {
			t.Parallel()
			h := newHosts(t, 1, c.u)[0]
			l, err := h.wire.Ensure(t.Context(), config(c.mode), h.prefixes)
			try(t, err)
			s := show(t, h)
			if s.Index != l.Index || s.MTU != c.mtu || s.LinkInfo.Kind != c.kind || s.Alias != h.wire.alias() || !slices.Contains(s.Flags, "UP") {
				t.Errorf("the link is %+v", s)
			}
			if got := s.addrs(); got != "10.100.1.1/32 fd99:0:0:1::1/128" {
				t.Errorf("its addresses are %s", got)
			}
		})
	}
}

// A gateway that was not found is looked for again once a second; without the fleet, once a minute.
func TestDirectRoutesLookForTheirGatewayAgain(t *testing.T) {
	t.Parallel()
	for mode, want := range map[state.Mode]string{state.Auto: "1", state.Direct: "1", state.Tunnel: "60"} {
		h := newHosts(t, 1, underlays{v4: true, v6: true})[0]
		_, err := h.wire.Ensure(t.Context(), config(mode), h.prefixes)
		try(t, err)
		if got, err := h.ns.Sysctl(t.Context(), "net.ipv6.conf.eth0.router_probe_interval"); err != nil || got != want {
			t.Errorf("mode %s: the interval is %s, %v; want %s", mode, got, err, want)
		}
	}
}

func TestTheHostForwardsWhatComesInByTheFleet(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true, v6: true})[0]
	testutil.Run(t, h.ns, "ip", "link", "add", "other0", "type", "bridge")
	_, err := h.wire.Ensure(t.Context(), config(state.Auto), h.prefixes)
	try(t, err)
	for name, want := range map[string]string{"fl0": "1", "eth0": "1", "other0": "0"} {
		if got, err := h.ns.Sysctl(t.Context(), "net.ipv4.conf."+name+".forwarding"); err != nil || got != want {
			t.Errorf("IPv4 forwarding of %s is %s, %v; want %s", name, got, err, want)
		}
		got, err := h.ns.Sysctl(t.Context(), "net.ipv6.conf."+name+".force_forwarding")
		if errors.Is(err, os.ErrNotExist) { // before Linux 6.17 there is only the switch for all
			got, err = h.ns.Sysctl(t.Context(), "net.ipv6.conf.all.forwarding")
			want = "1"
		}
		if err != nil || got != want {
			t.Errorf("IPv6 forwarding of %s is %s, %v; want %s", name, got, err, want)
		}
	}
}

func TestChangesAreMadeInPlace(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true})[0]
	cfg := config(state.Tunnel)
	_, err := h.wire.Ensure(t.Context(), cfg, h.prefixes)
	try(t, err)
	before := show(t, h)
	testutil.Run(t, h.ns, "ip", "link", "set", "eth0", "mtu", "9000")
	testutil.Run(t, h.ns, "ip", "address", "add", "10.9.9.9/24", "dev", "fl0")
	_, err = h.wire.Ensure(t.Context(), cfg, []netip.Prefix{prefix("10.100.5.0/24")})
	try(t, err)
	after := show(t, h)
	if after.Index != before.Index || after.MTU != 8964 {
		t.Errorf("the link was made anew, or has the wrong MTU: %+v", after)
	}
	if got := after.addrs(); got != "10.100.5.1/32" {
		t.Errorf("its addresses are %s", got)
	}
	// A fleet with another port: the kernel cannot change that.
	cfg.Port = 4791
	_, err = h.wire.Ensure(t.Context(), cfg, h.prefixes)
	try(t, err)
	if s := show(t, h); s.LinkInfo.Data.Port != 4791 || s.addrs() != "10.100.1.1/32 fd99:0:0:1::1/128" {
		t.Errorf("with another port the link is %+v", s)
	}
	// One without the alias is what a program left that was killed before it could set it.
	testutil.Run(t, h.ns, "ip", "link", "set", "fl0", "alias", "")
	index := show(t, h).Index
	_, err = h.wire.Ensure(t.Context(), cfg, h.prefixes)
	try(t, err)
	if s := show(t, h); s.Index != index || s.Alias != h.wire.alias() {
		t.Errorf("a link without the alias becomes %+v", s)
	}
}

func TestALinkThatWasRenamedGetsItsNameBack(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true})[0]
	before, err := h.wire.Ensure(t.Context(), config(state.Tunnel), h.prefixes)
	try(t, err)
	testutil.Run(t, h.ns, "ip", "link", "set", "fl0", "down")
	testutil.Run(t, h.ns, "ip", "link", "set", "fl0", "name", "other0")
	after, err := h.wire.Ensure(t.Context(), config(state.Tunnel), h.prefixes)
	try(t, err)
	if after.Index != before.Index || show(t, h).addrs() != "10.100.1.1/32 fd99:0:0:1::1/128" {
		t.Errorf("the link is %v and was %v", after, before)
	}
	// The link of a fleet with another link's name is left alone.
	_, err = New(h.ns, Options{Link: "fl1"}).Ensure(t.Context(), config(state.Tunnel), h.prefixes)
	if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "the VXLAN link fl0 (external gpe) has it") {
		t.Errorf("two fleets on one port: %v", err)
	}
}

func TestEnsureLeavesAForeignLinkAlone(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"bridge", "vxlan id 7 dstport 4790", "vxlan external gpe dstport 4789"} {
		h := newHosts(t, 1, underlays{v4: true})[0]
		testutil.Run(t, h.ns, "ip", strings.Fields("link add fl0 type "+kind)...)
		before := testutil.Run(t, h.ns, "ip", "-d", "address", "show", "dev", "fl0")
		_, err := h.wire.Ensure(t.Context(), config(state.Tunnel), h.prefixes)
		if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "not this fleet's") {
			t.Errorf("%s: %v", kind, err)
		}
		if after := testutil.Run(t, h.ns, "ip", "-d", "address", "show", "dev", "fl0"); after != before {
			t.Errorf("%s: it is now\n%s\nand was\n%s", kind, after, before)
		}
	}
}

func TestEnsureRefusesPrefixesOfNoPool(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true})[0]
	for _, p := range []netip.Prefix{prefix("10.9.1.0/24"), prefix("10.100.0.0/23"), {}} {
		if _, err := h.wire.Ensure(t.Context(), config(state.Tunnel), []netip.Prefix{p}); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%v: %v", p, err)
		}
	}
	if out, err := testutil.Try(t, h.ns, "ip", "link", "show", "fl0"); err == nil {
		t.Errorf("the failed call has left %s", out)
	}
}
