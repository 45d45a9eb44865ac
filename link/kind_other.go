package link

import (
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Other is a kind for which this package has no type: tunnels such as "gre", "sit"
// and "ipip", "macsec", "xfrm" and others. Its options are netlink attributes, in
// the form of linux/if_link.h and linux/if_tunnel.h.
//
// An attribute that the kernel reports with another value fails the call. About one
// that it does not report, such as the descriptors of a gtp, nothing is known:
// Create takes it as accepted, and Ensure does not change it on an existing link.
type Other struct {
	Name string // the kernel's name of the kind (IFLA_INFO_KIND)
	Data []Attr // the contents of IFLA_INFO_DATA
}

func (k Other) name() string { return k.Name }

func (k Other) check(*Spec) error {
	if k.Name == "" || len(k.Name) > 15 || strings.ContainsFunc(k.Name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return refuse.Input("%q is not the name of a kind", k.Name)
	}
	if _, raw := kindOf(k.Name).(Other); !raw {
		return refuse.Input("Other{Name: %q}: there is a type for this kind, use %T", k.Name, kindOf(k.Name))
	}
	for _, a := range k.Data {
		if a.Type&0x3fff == 0 || a.Type&0x3fff >= maxAttr || len(a.Data) > 60000 {
			return refuse.Input("attribute %d of %d bytes is out of range (1 to %d)", a.Type&0x3fff, len(a.Data), maxAttr-1)
		}
	}
	return nil
}

func (k Other) fields() (Kind, []field) {
	var list []field
	for i := range k.Data {
		a := &k.Data[i]
		list = append(list, field{a.Type, "attribute " + strconv.Itoa(int(a.Type&^0xc000)), &a.Data, raw{}})
	}
	return &k, list
}
