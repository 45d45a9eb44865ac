package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Version is that of the values that this program writes.
const Version = 1

// Mode says how packets get from node to node.
type Mode string

// The modes. Auto is Direct for a peer on the same link, and Tunnel for the others.
const (
	Tunnel    Mode = "tunnel"    // VXLAN-GPE: one route a peer, with the outer header in it
	Direct    Mode = "direct"    // a plain route by the peer's address; the peer is on the same link
	Auto      Mode = "auto"      // chosen peer by peer
	WireGuard Mode = "wireguard" // encrypted
)

// Config is what all nodes of a fleet agree on. The first agent writes it; it does not change afterwards.
type Config struct {
	Version int            `json:"version"`
	Pools   []netip.Prefix `json:"pools"` // where nodes' prefixes come from; several of a family add up
	Size4   int            `json:"size4"` // length of a node's IPv4 prefix, 24 by default; it has no meaning without an IPv4 pool
	Size6   int            `json:"size6"` // of its IPv6 prefix, 64 by default; it has no meaning without an IPv6 pool
	Mode    Mode           `json:"mode"`
	VNI     uint32         `json:"vni"`  // of the tunnel, 1 to 16777215
	Port    uint16         `json:"port"` // UDP port of the tunnel
	Hold    Duration       `json:"hold"` // how long a node must be gone before its peers act on it
	TTL     Duration       `json:"ttl"`  // of the alive keys' leases, whole seconds
}

// DefaultConfig is the Config of a fleet without options.
func DefaultConfig() Config {
	return Config{
		Version: Version,
		Pools:   []netip.Prefix{netip.MustParsePrefix("10.100.0.0/16"), netip.MustParsePrefix("fd99::/48")},
		Size4:   24, Size6: 64, Mode: Auto, VNI: 7, Port: 4790,
		Hold: Duration(60 * time.Second), TTL: Duration(10 * time.Second),
	}
}

// Size is the length of a node's prefix of a family.
func (c Config) Size(f netns.Family) int {
	if f == netns.IPv4 {
		return c.Size4
	}
	return c.Size6
}

// Families are those that the fleet has pools of, IPv4 first.
func (c Config) Families() []netns.Family {
	var families []netns.Family
	for _, f := range []netns.Family{netns.IPv4, netns.IPv6} {
		if c.Capacity(f) > 0 {
			families = append(families, f)
		}
	}
	return families
}

// PoolsOf are the pools of a family.
func (c Config) PoolsOf(f netns.Family) []netip.Prefix {
	var pools []netip.Prefix
	for _, p := range c.Pools {
		if p.Addr().Is4() == (f == netns.IPv4) {
			pools = append(pools, p)
		}
	}
	return pools
}

// reserved are addresses that no box can have: those of no host, of the host itself, of one link, and of many hosts.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// Validate reports what is wrong with the Config, all of it. The error is os.ErrInvalid.
func (c Config) Validate() error {
	errs := []error{validVersion(c.Version)}
	bad := func(format string, args ...any) { errs = append(errs, invalid(format, args...)) }
	if len(c.Pools) == 0 {
		bad("no pool of addresses")
	}
	for i, p := range c.Pools {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			bad("pool %v: want a prefix without host bits", p)
			continue
		}
		for _, o := range reserved {
			if o.Overlaps(p) {
				bad("pool %v: its addresses cannot be those of boxes: %v has another use", p, o)
			}
		}
		for _, o := range c.Pools[:i] {
			if o.Overlaps(p) {
				bad("pools %v and %v overlap", o, p)
			}
		}
		family, size, most := 4, c.Size4, 29 // room for a gateway and a few boxes
		if p.Addr().Is6() {
			family, size, most = 6, c.Size6, 120
		}
		if size < p.Bits() || size > most {
			bad("pool %v: size%d, a node's prefix, of length %d: want %d to %d", p, family, size, p.Bits(), most)
		}
		if size-p.Bits() > 32 {
			bad("pool %v: more than 4294967296 prefixes of length %d", p, size)
		}
	}
	switch c.Mode {
	case Tunnel, Direct, Auto, WireGuard:
	default:
		bad("mode %.40q: want tunnel, direct, auto or wireguard", c.Mode)
	}
	if c.VNI == 0 || c.VNI > 1<<24-1 {
		bad("vni %d: want 1 to 16777215", c.VNI)
	}
	if c.Port == 0 {
		bad("port 0: want 1 to 65535")
	}
	if ttl := time.Duration(c.TTL); ttl < time.Second || ttl > time.Hour || ttl%time.Second != 0 {
		bad("ttl %v: want whole seconds, 1s to 1h", ttl)
	}
	if hold := time.Duration(c.Hold); hold < 0 || hold > 24*time.Hour {
		bad("hold %v: want 0s to 24h", hold)
	}
	return errors.Join(errs...)
}

// Equal reports whether two Configs are the same.
func (c Config) Equal(o Config) bool {
	a, _ := json.Marshal(c)
	b, _ := json.Marshal(o)
	return string(a) == string(b)
}

// Duration is a time.Duration that JSON has as "60s".
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the form of time.Duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("duration %.40q: want a form like 60s", text)
	}
	*d = Duration(parsed)
	return nil
}

// Fields are the Config's values by their names in JSON, in the form of JSON.
func (c Config) Fields() map[string]string {
	var raw map[string]json.RawMessage
	_ = json.Unmarshal(Encode(c), &raw) // it is an object
	fields := make(map[string]string, len(raw))
	for name, value := range raw {
		fields[name] = string(value)
	}
	return fields
}
