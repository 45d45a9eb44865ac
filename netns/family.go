package netns

import "github.com/boxwire/boxwire/internal/enum"

// Family is an address family. Packages link and route share it.
type Family uint8

// The address families. Their numbers are not those of AF_INET and AF_INET6.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

var familyNames = map[Family]string{IPv4: "IPv4", IPv6: "IPv6"}

// String returns "IPv4" or "IPv6".
func (f Family) String() string { return enum.Name(familyNames, f) }

// MarshalText returns what String does.
func (f Family) MarshalText() ([]byte, error) { return enum.Marshal(familyNames, f) }

// UnmarshalText reads what MarshalText writes. Other text is os.ErrInvalid.
func (f *Family) UnmarshalText(text []byte) error { return enum.Unmarshal(familyNames, f, text) }
