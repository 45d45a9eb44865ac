package wire

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

func TestCheckNamesWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		cfg  func(*state.Config)
		host string // commands of ip
		own  []netip.Prefix
		want string // in the error; "" is none
		is   error
	}{
		{name: "nothing"},
		{name: "default routes", host: "route add default via 192.0.2.254\n-6 route add default via fd77::fe"},
		{name: "routes that refuse", host: "route add blackhole 10.0.0.0/8\n-6 route add unreachable fd00::/8 metric 4294967295"},
		{name: "routes of other networks", host: "route add 10.101.0.0/16 via 192.0.2.254\nroute add 10.100.0.0/16 via 192.0.2.254 proto 201"},
		{
			name: "an address in a pool", host: "addr add 10.100.3.4/16 dev eth0",
			want: "pool 10.100.0.0/16 in netns NS: it overlaps the address 10.100.3.4/16 of link eth0", is: os.ErrInvalid,
		},
		{
			name: "an address whose subnet has a pool in it", host: "link add x0 type bridge\naddr add fd99::5/32 dev x0",
			want: "pool fd99::/48 in netns NS: it overlaps the address fd99::5/32 of link x0", is: os.ErrInvalid,
		},
		{
			name: "a route in a pool", host: "route add 10.100.128.0/17 via 192.0.2.254",
			want: "pool 10.100.0.0/16 in netns NS: it overlaps the route 10.100.128.0/17 via 192.0.2.254 dev 2 proto boot, which leaves by link eth0", is: os.ErrInvalid,
		},
		{
			name: "a route that a pool is in, of another table", host: "-6 route add fd00::/8 via fd77::fe table 100",
			want: "pool fd99::/48 in netns NS: it overlaps the route fd00::/8 via fd77::fe dev 2", is: os.ErrInvalid,
		},
		{
			name: "boxes of the node", host: "link add boxes type bridge\naddr add 10.100.1.1/24 dev boxes\nlink set boxes up\nroute add 10.100.1.7/32 dev boxes",
			own: []netip.Prefix{prefix("10.100.1.0/24")},
		},
		{
			name: "boxes of a node that has another prefix", host: "link add boxes type bridge\naddr add 10.100.1.1/24 dev boxes",
			own: []netip.Prefix{prefix("10.100.2.0/24")}, want: "it overlaps the address 10.100.1.1/24 of link boxes", is: os.ErrInvalid,
		},
		{
			name: "too little room for IPv6", host: "link set eth0 mtu 1300",
			want: "link eth0 in netns NS: its MTU is 1300, which leaves 1264 bytes to a packet in mode tunnel; the pool fd99::/48 needs 1280", is: os.ErrInvalid,
		},
		{
			name: "little room, for IPv4 alone", host: "link set eth0 mtu 1300",
			cfg: func(c *state.Config) { c.Pools, c.Size6 = c.Pools[:1], 0 },
		},
		{
			name: "too little room for IPv4", host: "addr flush dev eth0\nlink set eth0 mtu 100\naddr add 192.0.2.1/24 dev eth0",
			cfg:  func(c *state.Config) { c.Pools, c.Size6 = c.Pools[:1], 0 },
			want: "its MTU is 100, which leaves 64 bytes to a packet in mode tunnel; the pool 10.100.0.0/16 needs 68", is: os.ErrInvalid,
		},
		{
			name: "a link of that name, of another kind", host: "link add fl0 type bridge",
			want: `link fl0 in netns NS: there is a link of that name which is not this fleet's (kind bridge, alias "")`, is: os.ErrExist,
		},
		{
			name: "a link of that name, with another port", host: "link add fl0 type vxlan external gpe dstport 4789",
			want: `there is a link of that name which is not this fleet's (kind vxlan, alias "")`, is: os.ErrExist,
		},
		{
			name: "what a killed program has begun", host: "link add fl0 type vxlan external gpe dstport 4790",
		},
		{
			name: "a VXLAN link that has the port", host: "link add vx7 type vxlan id 7 dstport 4790",
			want: "UDP port 4790 in netns NS: the VXLAN link vx7 (id 7) has it: give the fleet another port", is: os.ErrExist,
		},
		{
			name: "another external VXLAN link", host: "link add ext0 type vxlan external gpe dstport 4790",
			want: "the VXLAN link ext0 (external gpe) has it", is: os.ErrExist,
		},
		{
			name: "no underlay", host: "addr flush dev eth0",
			want: "wire.Underlay links in netns NS: no link is up and has an address that leads to other machines", is: os.ErrNotExist,
		},
		{
			name: "a config that cannot be", cfg: func(c *state.Config) { c.VNI = 0 },
			want: "wire.Check config in netns NS: vni 0: want 1 to 16777215", is: os.ErrInvalid,
		},
		{
			name: "several at once", host: "route add 10.100.128.0/17 via 192.0.2.254\nlink add fl0 type bridge",
			want: "there is a link of that name", is: os.ErrInvalid,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHosts(t, 1, underlays{v4: true, v6: true})[0]
			testutil.Run(t, h.ns, "ip", "link", "del", "box")
			for line := range strings.Lines(c.host) {
				testutil.Run(t, h.ns, "ip", strings.Fields(line)...)
			}
			cfg := config(state.Tunnel)
			if c.cfg != nil {
				c.cfg(&cfg)
			}
			count := countChanges(t, h.ns)
			err := h.wire.Check(t.Context(), cfg, c.own...)
			want := strings.ReplaceAll(c.want, "NS", h.ns.String())
			switch {
			case want == "" && err != nil:
				t.Errorf("the check fails: %v", err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, c.is)):
				t.Errorf("the error is\n%v\nwant one with\n%s", err, want)
			}
			if events := count.seen(t); len(events) > 0 {
				t.Errorf("the check changes %q", events)
			}
		})
	}
}

func TestAPortOfAProgramIsInTheWay(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true})[0]
	c, err := h.ns.ListenPacket(t.Context(), "udp6", ":4790")
	try(t, err)
	defer c.Close()
	err = h.wire.Check(t.Context(), config(state.Tunnel), h.prefixes...)
	if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "UDP port 4790") {
		t.Errorf("the error is %v", err)
	}
}

func TestEnsureNamesWhatHasThePort(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true})[0]
	testutil.Run(t, h.ns, "ip", "link", "add", "vx7", "up", "type", "vxlan", "id", "7", "dstport", "4790")
	_, err := h.wire.Ensure(t.Context(), config(state.Tunnel), h.prefixes)
	if err == nil || !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "the VXLAN link vx7") {
		t.Errorf("the error is %v", err)
	}
	if out, err := testutil.Try(t, h.ns, "ip", "link", "show", "fl0"); err == nil {
		t.Errorf("the failed call has left %s", out)
	}
}

func TestTheKeyIsMadeOnceAndReadByItsOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := New(nil, Options{Dir: dir})
	first, err := w.PublicKey()
	try(t, err)
	if again, err := New(nil, Options{Dir: dir}).PublicKey(); err != nil || again != first {
		t.Errorf("the key is %q, %v, and was %q", again, err, first)
	}
	path := filepath.Join(dir, keyFile)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("the directory has %v, %v", files, err)
	}
	try(t, os.Chmod(path, 0o644))
	if _, err := w.PublicKey(); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "-rw-r--r--") {
		t.Errorf("a key that others can read: %v", err)
	}
	try(t, os.Chmod(path, 0o600))
	try(t, os.WriteFile(path, []byte("nonsense\n"), 0o600))
	if _, err := w.PublicKey(); err == nil || !strings.Contains(err.Error(), "no private key") {
		t.Errorf("a file without a key: %v", err)
	}
	if _, err := New(nil, Options{}).PublicKey(); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := New(nil, Options{Dir: dir + "/missing"}).PublicKey(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}

func TestUnderlay(t *testing.T) {
	t.Parallel()
	h := newHosts(t, 1, underlays{v4: true, v6: true})[0]
	for _, line := range []string{
		"link add br0 type bridge", "addr add 172.17.0.1/16 dev br0", "link set br0 up",
		"link add br1 type bridge", "addr add 198.51.100.1/24 dev br1", "link set br1 up",
	} {
		testutil.Run(t, h.ns, "ip", strings.Fields(line)...)
	}
	names := func(o Options) (names []string, addrs []netip.Prefix) {
		underlay, err := New(h.ns, o).Underlay(t.Context(), config(state.Tunnel))
		try(t, err)
		for _, u := range underlay {
			names, addrs = append(names, u.Name), append(addrs, u.Addrs...)
		}
		return names, addrs
	}
	for _, c := range []struct {
		before string
		o      Options
		want   string
	}{
		{o: Options{}, want: "eth0 br0 br1"}, // the box's link has addresses of the pools only
		{before: "route add default via 198.51.100.2 metric 20", want: "br1"},
		{before: "route add default via 192.0.2.254 metric 10", want: "eth0 br1"},
		{before: "-6 route add default nexthop via fd77::fe dev eth0 nexthop via fd77::ff dev eth0", want: "eth0 br1"},
		{o: Options{Underlay: []string{"br0", "eth0"}}, want: "br0 eth0"},
	} {
		if c.before != "" {
			testutil.Run(t, h.ns, "ip", strings.Fields(c.before)...)
		}
		got, addrs := names(c.o)
		if strings.Join(got, " ") != c.want {
			t.Errorf("behind %q the underlay is %q, want %s", c.before, got, c.want)
		}
		for _, a := range addrs {
			if a.Addr().IsLinkLocalUnicast() {
				t.Errorf("it has the link-local address %v", a)
			}
		}
	}
	_, err := New(h.ns, Options{Underlay: []string{"eth9"}}).Underlay(t.Context(), config(state.Tunnel))
	if err = netns.IgnoreNotExist(err); err != nil {
		t.Errorf("a missing link: %v", err)
	}
}
