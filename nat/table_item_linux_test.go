package nat

import (
	"slices"
	"testing"
)

// A network of IPv6 goes and one of IPv4 comes: the set that says where packets are within
// a network comes after those that have its addresses, of either.
func TestSetsChangeInTheOrderOfTheSkeleton(t *testing.T) {
	t.Parallel()
	six := Network{Interface: "br6", Subnets: prefixes("fd88::/64")}.items()
	four := Network{Interface: "br4", Subnets: prefixes("10.88.0.0/16")}.items()
	sets := setsOf(six, four)
	within := slices.Index(sets, "within")
	for _, same := range []string{"same4", "same6"} {
		if at := slices.Index(sets, same); at < 0 || at > within {
			t.Errorf("%s is at %d of %v, within at %d", same, at, sets, within)
		}
	}
}
