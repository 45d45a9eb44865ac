package link

import (
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Other is a kind that this package does not spell out: tunnels such as "gre",
// "sit" and "ipip", "macsec", "xfrm" and so on. Its options are netlink
// attributes, in the form that linux/if_link.h and linux/if_tunnel.h give them.
//
// An attribute that the kernel shows otherwise than it was given fails the call, as an
// option does. Of one that it does not show, such as the descriptors of a gtp,
// nothing can be said: Create takes the kernel's silence for consent, and Ensure of a
// link that is there leaves it alone.
type Other struct {
	Name string // the kernel's name of the kind (IFLA_INFO_KIND)
	Data []Attr // what stands in IFLA_INFO_DATA
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
