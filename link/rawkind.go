package link

import (
	"bytes"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Other is a kind that this package does not spell out: tunnels such as "gre",
// "sit" and "ipip", "macsec", "xfrm" and so on. Its options are netlink
// attributes, in the form that linux/if_link.h and linux/if_tunnel.h give them.
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

func (k Other) options(o *options) Kind {
	switch o.do {
	case encode:
		for _, a := range k.Data {
			o.custom(a.Type, "", true, func() []byte { return a.Data }, nil, nil)
		}
	case decode:
		k.Data = o.rest()
		for _, a := range k.Data {
			o.read.add(a.Type)
		}
	}
	return k
}

// rest returns copies of the attributes that no option has read.
func (o *options) rest() (list []Attr) {
	for t, data := range o.in {
		if data != nil && !o.read.has(uint16(t)) {
			list = append(list, Attr{Type: uint16(t), Data: bytes.Clone(data)})
		}
	}
	return list
}
