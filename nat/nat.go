package nat

import (
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Options are the options of [Open]; their zero value is fine.
type Options struct {
	// Name is the name of the nftables table, by default "boxwire": a letter,
	// then letters, digits, '_', '-' and '.', at most 64 bytes. Programs that use
	// the same name share published ports and networks; with different names they
	// do not see each other's, and a packet has to pass both tables.
	Name string

	// LoopbackLinks are links besides lo over which packets for and from
	// 127.0.0.0/8 come in rightly: the loopback0 of WSL2 with mirrored networking,
	// for one. From any other they are dropped. The links need not exist; what
	// another program has named in the same table stays.
	LoopbackLinks []string

	// Alive, unless nil, says whether an owner of published ports still exists.
	// Where a host port that is wanted is taken by an owner that does not, the
	// dead one's mapping is removed in the same transaction. It is called from
	// within Publish, and must not call methods of the NAT.
	Alive func(owner string) bool

	// NoReserve leaves it to the caller to keep other programs of the host from
	// taking the host ports that are published. By default, a NAT binds them
	// itself until they are unpublished or it is closed: a single port or one of a
	// range of up to 256 by a socket that lets nothing in, up to 4096 of them or
	// a quarter of the descriptors that the process may have. Of others it makes
	// sure, when they are published, that no program has them. From the second port
	// of a protocol on, it has a few sockets more ready for the next ones.
	NoReserve bool
}

// maxName is the length of the longest table name taken; the kernel takes 255.
const maxName = 64

// NAT is an open table of published ports and networks in one namespace. It is
// usable while the namespace handle that it was opened with is, and holds the
// reserved ports open until [NAT.Close]. It is safe for concurrent use.
type NAT struct {
	ns    *netns.NS
	table string
	alive func(owner string) bool

	loopback   []string // Options.LoopbackLinks
	unreserved bool     // host ports are not reserved
	memory
}

// NS returns the namespace.
func (n *NAT) NS() *netns.NS { return n.ns }

// Name returns the name of the nftables table.
func (n *NAT) Name() string { return n.table }

// String returns the table as nft names it: "table inet boxwire".
func (n *NAT) String() string { return "table inet " + n.table }

// tableName checks a name and fills in the default.
func tableName(name string) (string, error) {
	if name == "" {
		return "boxwire", nil
	}
	if len(name) > maxName {
		return name, refuse.Input("the table name has %d bytes, %d is the most", len(name), maxName)
	}
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789_-.", r)) {
			return name, refuse.Input("the table name %q contains %q at byte %d", name, r, i)
		}
	}
	return name, nil
}

// checked checks the options, and returns them with the default name filled in.
func (o Options) checked() (Options, error) {
	var err error
	if o.Name, err = tableName(o.Name); err != nil {
		return o, err
	}
	for _, name := range o.LoopbackLinks {
		if err := checkInterface(name); err != nil {
			return o, err
		}
	}
	o.LoopbackLinks = slices.Clone(o.LoopbackLinks)
	return o, nil
}

// portsSubject names the ports of a call in its error.
func portsSubject(ports []Port) string {
	switch len(ports) {
	case 0:
		return "no ports"
	case 1:
		return ports[0].String()
	}
	var b strings.Builder
	b.WriteString(ports[0].String())
	b.WriteString(" and others")
	return b.String()
}
