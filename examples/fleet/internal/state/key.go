package state

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// Root is where the keys of a fleet lie. It ends with '/'.
func Root(fleet string) string { return "/boxwire/fleet/" + fleet + "/" }

// ValidFleet reports what is wrong with the name of a fleet. The error is os.ErrInvalid.
func ValidFleet(name string) error {
	if name == "" || len(name) > 63 || name == "." || name == ".." || strings.ContainsFunc(name, notOfAName) {
		return invalid("name of a fleet %.80q: want 1 to 63 letters, digits, '.', '-' or '_'", name)
	}
	return nil
}

// ConfigKey is the key of the Config. It and those that the functions give are relative to Root.
const ConfigKey = "config"

// ClaimKey is the key of a prefix's claim.
func ClaimKey(p netip.Prefix) string {
	return fmt.Sprintf("claim/%s-%d", p.Addr(), p.Bits())
}

// NodeKey is the key of a node.
func NodeKey(id ID) string { return "node/" + id.String() }

// AliveKey is the key of a node's agent.
func AliveKey(id ID) string { return "alive/" + id.String() }

// DeadKey is the key that says that a node is dead.
func DeadKey(id ID) string { return "dead/" + id.String() }

// ParseClaimKey reads what [ClaimKey] writes. A prefix has one key: other forms of it are refused. The error is os.ErrInvalid.
func ParseClaimKey(key string) (netip.Prefix, error) {
	s, ok := strings.CutPrefix(key, "claim/")
	at := strings.LastIndexByte(s, '-')
	if !ok || at < 0 {
		return netip.Prefix{}, invalid("want a key like claim/10.100.7.0-24")
	}
	p, err := netip.ParsePrefix(s[:at] + "/" + s[at+1:])
	if err != nil || p != p.Masked() || p.Addr().Is4In6() || ClaimKey(p) != key {
		return netip.Prefix{}, invalid("want a key like claim/10.100.7.0-24")
	}
	return p, nil
}

// invalid is an error that is os.ErrInvalid.
func invalid(format string, args ...any) error {
	return &invalidError{fmt.Sprintf(format, args...)}
}

type invalidError struct{ text string }

func (e *invalidError) Error() string        { return e.text }
func (e *invalidError) Is(target error) bool { return target == os.ErrInvalid }
