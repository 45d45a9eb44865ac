package link

import (
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Feature is an offload feature of a link: work that hardware or driver does in
// place of the kernel's stack (ethtool(8), --show-features).
type Feature struct {
	Name   string // the kernel's name, "tx-checksum-ip-generic"
	Active bool   // the feature is on
	Wanted bool   // it was switched on; it is off all the same while a feature that it needs is off
	Fixed  bool   // the link cannot switch it
}

// checkFeatures refuses names that no feature has.
func checkFeatures(set map[string]bool) error {
	for name := range set {
		if name == "" || len(name) > 31 || strings.ContainsRune(name, 0) { // ETH_GSTRING_LEN
			return refuse.Input("%q is not the name of a feature: 1 to 31 bytes", name)
		}
	}
	return nil
}
