package state

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
)

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// with is the default Config, changed.
func with(change func(*Config)) Config {
	c := DefaultConfig()
	change(&c)
	return c
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		c    Config
		want []string // in the error; none for a valid Config
	}{
		{"default", DefaultConfig(), nil},
		{"zero", Config{}, []string{"version 0", "no pool", "mode", "vni 0", "port 0", "ttl 0s"}},
		{"IPv4 alone", with(func(c *Config) { c.Pools = prefixes("10.0.0.0/16"); c.Size6 = 0 }), nil},
		{"IPv6 alone", with(func(c *Config) { c.Pools = prefixes("fd00::/48"); c.Size4 = 0 }), nil},
		{"a pool of one node", with(func(c *Config) { c.Pools = prefixes("10.0.0.0/24") }), nil},
		{"host bits", with(func(c *Config) { c.Pools[0] = netip.MustParsePrefix("10.0.0.1/16") }), []string{"10.0.0.1/16: want a prefix without host bits"}},
		{"an invalid prefix", with(func(c *Config) { c.Pools[0] = netip.Prefix{} }), []string{"want a prefix without host bits"}},
		{"IPv4 in IPv6", with(func(c *Config) { c.Pools[0] = netip.MustParsePrefix("::ffff:10.0.0.0/112") }), []string{"want a prefix without host bits"}},
		{"everything", with(func(c *Config) { c.Pools[0] = netip.MustParsePrefix("0.0.0.0/0") }), []string{"0.0.0.0/0: its addresses cannot"}},
		{"loopback", with(func(c *Config) { c.Pools[0] = netip.MustParsePrefix("127.0.0.0/16") }), []string{"127.0.0.0/16: its addresses cannot"}},
		{"multicast", with(func(c *Config) { c.Pools[1] = netip.MustParsePrefix("ff00::/48") }), []string{"ff00::/48: its addresses cannot"}},
		{"link-local", with(func(c *Config) { c.Pools[1] = netip.MustParsePrefix("fe80::/48") }), []string{"fe80::/48: its addresses cannot"}},
		{"around loopback", with(func(c *Config) { c.Pools[0] = netip.MustParsePrefix("126.0.0.0/7"); c.Size4 = 24 }), []string{"126.0.0.0/7: its addresses cannot"}},
		{"around multicast", with(func(c *Config) { c.Pools[0] = netip.MustParsePrefix("192.0.0.0/2") }), []string{"192.0.0.0/2: its addresses cannot"}},
		{"around link-local", with(func(c *Config) { c.Pools[1] = netip.MustParsePrefix("fe00::/8"); c.Size6 = 40 }), []string{"fe00::/8: its addresses cannot"}},
		{"around the unspecified address", with(func(c *Config) { c.Pools[1] = netip.MustParsePrefix("::/48") }), []string{"::/48: its addresses cannot"}},
		{"overlap", with(func(c *Config) { c.Pools = prefixes("10.0.0.0/16", "fd00::/48", "10.0.128.0/17") }), []string{"pools 10.0.0.0/16 and 10.0.128.0/17 overlap"}},
		{"a size above the pool's", with(func(c *Config) { c.Size4 = 15 }), []string{"length 15: want 16 to 29"}},
		{"too small a size", with(func(c *Config) { c.Size4 = 30 }), []string{"length 30: want 16 to 29"}},
		{"too small a size of IPv6", with(func(c *Config) { c.Size6 = 121 }), []string{"length 121: want 48 to 120"}},
		{"too many prefixes", with(func(c *Config) { c.Size6 = 112 }), []string{"more than 4294967296 prefixes"}},
		{"another mode", with(func(c *Config) { c.Mode = "x" }), []string{`mode "x"`}},
		{"too big a vni", with(func(c *Config) { c.VNI = 1 << 24 }), []string{"vni 16777216"}},
		{"a broken second", with(func(c *Config) { c.TTL = Duration(1500 * time.Millisecond) }), []string{"ttl 1.5s"}},
		{"a negative hold", with(func(c *Config) { c.Hold = -1 }), []string{"hold -1ns"}},
		{"a hold of days", with(func(c *Config) { c.Hold = Duration(25 * time.Hour) }), []string{"hold 25h0m0s"}},
		{"a newer version", with(func(c *Config) { c.Version = Version + 1 }), []string{"version 2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantError(t, test.c.Validate(), test.want)
		})
	}
}

// wantError wants an os.ErrInvalid with all of the texts, or no error if there are none.
func wantError(t testing.TB, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("error %v", err)
		}
		return
	}
	if !errors.Is(err, os.ErrInvalid) {
		t.Fatalf("error %v: want os.ErrInvalid with %q", err, want)
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q: want %q", err, text)
		}
	}
}

func TestConfigFamilies(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	if got := c.Families(); !reflect.DeepEqual(got, []netns.Family{netns.IPv4, netns.IPv6}) {
		t.Errorf("families %v", got)
	}
	c.Pools = prefixes("fd00::/48")
	if got := c.Families(); !reflect.DeepEqual(got, []netns.Family{netns.IPv6}) {
		t.Errorf("families %v", got)
	}
}

func TestConfigIsWrittenAndRead(t *testing.T) {
	t.Parallel()
	c := DefaultConfig()
	text := string(Encode(c))
	for _, part := range []string{`"pools":["10.100.0.0/16","fd99::/48"]`, `"hold":"1m0s"`, `"ttl":"10s"`, `"version":1`} {
		if !strings.Contains(text, part) {
			t.Errorf("%s does not have %s", text, part)
		}
	}
	var got Config
	if err := json.Unmarshal([]byte(text), &got); err != nil || !got.Equal(c) {
		t.Errorf("%+v, %v: want %+v", got, err, c)
	}
	if err := json.Unmarshal([]byte(`{"hold":"x"}`), &got); err == nil || !strings.Contains(err.Error(), "want a form like 60s") {
		t.Errorf("error %v", err)
	}
}
