package route

import (
	"errors"
	"slices"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Family is an address family.
type Family = netns.Family

// The address families.
const (
	IPv4 = netns.IPv4
	IPv6 = netns.IPv6
)

func checkFamily(f Family) error {
	if f != 0 && f != IPv4 && f != IPv6 {
		return refuse.Input("family %d is neither IPv4 nor IPv6", f)
	}
	return nil
}

// Filter selects the routes of [List], [All], [Flush] and [Watch]. A zero field matches any
// route. The zero Filter selects every route of every table, including the kernel's own
// ([TableLocal]). The kernel applies the filter.
type Filter struct {
	Family   Family   // IPv4 or IPv6
	Table    Table    // one table; one that does not exist has no routes
	Dev      int      // routes that leave by the link with this index; os.ErrNotExist if there is none
	Protocol Protocol // routes that this protocol made
	Type     Type     // routes of one type
}

func (f Filter) check() error {
	if !isIndex(f.Dev) {
		return refuse.Input("dev %d is not the index of a link", f.Dev)
	}
	return errors.Join(checkFamily(f.Family), f.Protocol.check())
}

// match reports what the kernel's filter decides. It serves events, and kernels and
// families that ignore a part of the filter.
func (f *Filter) match(r *Route) bool {
	return (f.Family == 0 || (f.Family == IPv4) == r.is4()) &&
		(f.Table == 0 || f.Table == r.Table) &&
		(f.Dev == 0 || f.Dev == r.Dev || slices.ContainsFunc(r.Hops, func(h Hop) bool { return h.Dev == f.Dev })) &&
		(f.Protocol == 0 || f.Protocol == r.Protocol) &&
		(f.Type == 0 || f.Type == r.Type)
}
