package state

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	id, err := ParseID("000102030405060708090a0b0c0d0e0f")
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		Root("lab"):  "/boxwire/fleet/lab/",
		NodeKey(id):  "node/000102030405060708090a0b0c0d0e0f",
		AliveKey(id): "alive/000102030405060708090a0b0c0d0e0f",
		DeadKey(id):  "dead/000102030405060708090a0b0c0d0e0f",
		ClaimKey(netip.MustParsePrefix("10.100.7.0/24")):   "claim/10.100.7.0-24",
		ClaimKey(netip.MustParsePrefix("fd99:0:0:7::/64")): "claim/fd99:0:0:7::-64",
		id.Short(): "00010203",
	} {
		if got != want {
			t.Errorf("%s: want %s", got, want)
		}
	}
}

func TestClaimKeyIsReadBack(t *testing.T) {
	t.Parallel()
	for _, p := range prefixes("10.100.7.0/24", "fd99:0:0:7::/64", "::/0", "0.0.0.0/32") {
		if got, err := ParseClaimKey(ClaimKey(p)); err != nil || got != p {
			t.Errorf("%s is read as %v, %v", ClaimKey(p), got, err)
		}
	}
	// There is one key a prefix: two forms of one would be two claims.
	for _, key := range []string{
		"", "claim", "claim/", "claim/-", "claim/10.0.0.0", "claim/10.0.0.0-", "claim/10.0.0.0/24", "claim/10.0.0.1-24", "claim/10.0.0.0-33",
		"claim/10.0.0.0-024", "claim/010.0.0.0-24", "claim/FD00::-64", "claim/fd00:0::-64", "claim/::ffff:10.0.0.0-120", "claim/fd00::%a-64",
		"10.0.0.0-24", "node/10.0.0.0-24", "claim/10.0.0.0-24 ", "claim/10.0.0.0-+24", "claim/10.0.0.0--24",
	} {
		if p, err := ParseClaimKey(key); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%q is read as %v, %v", key, p, err)
		}
	}
}

func TestParseID(t *testing.T) {
	t.Parallel()
	id := NewID()
	if got, err := ParseID(id.String()); err != nil || got != id {
		t.Errorf("%v is read as %v, %v", id, got, err)
	}
	if NewID() == id {
		t.Error("two IDs are the same")
	}
	for _, text := range []string{"", "00", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("0", 34), strings.Repeat("A", 32), strings.Repeat("g", 32), " " + strings.Repeat("0", 31)} {
		if _, err := ParseID(text); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%q: error %v: want os.ErrInvalid", text, err)
		}
	}
}

func TestValidFleet(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lab", "a", "A-1_b.c", strings.Repeat("x", 63)} {
		if err := ValidFleet(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "a b", "ä", "a\x00", strings.Repeat("x", 64)} {
		if err := ValidFleet(name); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%q: error %v: want os.ErrInvalid", name, err)
		}
	}
}
