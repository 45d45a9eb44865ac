package state

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// MaxEndpoints is how many addresses a node gives at most.
const MaxEndpoints = 16

// Node is what a node says of itself. It stays in the store while the node is down.
type Node struct {
	Version    int            `json:"version"`
	ID         ID             `json:"id"`
	Name       string         `json:"name"`                // for people: the machine's name
	Endpoints  []netip.Addr   `json:"endpoints"`           // where its tunnel is reached, the preferred first
	MTU        int            `json:"mtu"`                 // of the underlay: the largest packet that it takes
	Prefixes   []netip.Prefix `json:"prefixes"`            // what it has claimed
	PublicKey  string         `json:"publicKey,omitempty"` // of WireGuard, base64
	Generation uint64         `json:"generation"`          // rises with every start of the node's agent
}

// Claim says which node has a prefix. It is created only if there is none of the prefix.
type Claim struct {
	Version int `json:"version"`
	Node    ID  `json:"node"`
}

// Alive says that a node's agent runs, and where. Its key ends with its lease.
type Alive struct {
	Version    int    `json:"version"`
	ID         ID     `json:"id"`
	Generation uint64 `json:"generation"`
	Instance   ID     `json:"instance"` // of this run of the agent
	Machine    string `json:"machine"`  // the machine's name
	Boot       string `json:"boot"`     // /proc/sys/kernel/random/boot_id
	Pid        int    `json:"pid"`
	Started    uint64 `json:"started"` // the process's start in clock ticks after boot: field 22 of /proc/PID/stat
}

// Dead says since when a node is dead. It ends when the node's agent comes back.
type Dead struct {
	Version int       `json:"version"`
	Since   time.Time `json:"since"`
}

// ValidName reports what is wrong with the name of a node. The error is os.ErrInvalid.
func ValidName(name string) error {
	if name == "" || len(name) > 253 || strings.ContainsFunc(name, notOfAName) {
		return invalid("name of a node %.80q: want 1 to 253 letters, digits, '.', '-' or '_'", name)
	}
	return nil
}

// Validate reports what is wrong with the Node. The error is os.ErrInvalid. The claims are checked by [Decode].
func (n Node) Validate() error {
	errs := []error{validVersion(n.Version)}
	bad := func(format string, args ...any) { errs = append(errs, invalid(format, args...)) }
	if n.ID == (ID{}) {
		bad("no id")
	}
	if err := ValidName(n.Name); err != nil {
		errs = append(errs, err)
	}
	if len(n.Endpoints) == 0 || len(n.Endpoints) > MaxEndpoints {
		bad("%d endpoints: want 1 to %d", len(n.Endpoints), MaxEndpoints)
	}
	for _, a := range n.Endpoints {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			bad("endpoint %v: want an address that other machines reach", a)
		}
	}
	if n.MTU < 576 || n.MTU > 65535 {
		bad("mtu %d: want 576 to 65535", n.MTU)
	}
	if len(n.Prefixes) == 0 || len(n.Prefixes) > 2 {
		bad("%d prefixes: want one of each family", len(n.Prefixes))
	}
	if n.PublicKey != "" {
		if key, err := base64.StdEncoding.Strict().DecodeString(n.PublicKey); err != nil || len(key) != 32 {
			bad("public key %.60q: want 32 bytes in base64", n.PublicKey)
		}
	}
	return errors.Join(errs...)
}

// Validate reports what is wrong with the Dead. The error is os.ErrInvalid.
func (d Dead) Validate() error {
	if d.Since.IsZero() {
		return errors.Join(validVersion(d.Version), invalid("no time since when the node is dead"))
	}
	return validVersion(d.Version)
}

// Equal reports whether two Nodes say the same.
func (n Node) Equal(o Node) bool {
	return n.Version == o.Version && n.ID == o.ID && n.Name == o.Name && n.MTU == o.MTU && n.PublicKey == o.PublicKey &&
		n.Generation == o.Generation && slices.Equal(n.Endpoints, o.Endpoints) && slices.Equal(n.Prefixes, o.Prefixes)
}

func notOfAName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
}
