package route

import (
	"slices"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Family is an address family.
type Family uint8

// The families. They are not the numbers of AF_*.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) check() error {
	if f != 0 && f != IPv4 && f != IPv6 {
		return refuse.Input("family %d is neither IPv4 nor IPv6", f)
	}
	return nil
}

// Filter chooses which routes [List], [All], [Flush] and [Watch] are about. A
// zero field chooses nothing; the zero Filter means every route of every table,
// the kernel's own ([TableLocal]) too. The kernel itself filters.
type Filter struct {
	Family   Family   // IPv4 or IPv6
	Table    Table    // one table; one that does not exist has no routes
	Dev      int      // routes that leave by the link with this index; os.ErrNotExist if there is none
	Protocol Protocol // routes that this one made
	Type     Type     // routes of one type
}

func (f Filter) check() error {
	if !isIndex(f.Dev) {
		return refuse.Input("dev %d is not the index of a link", f.Dev)
	}
	return f.Family.check()
}

// match reports what the kernel's filter decides, for kernels and families that
// pass over a part of it, and for events.
func (f *Filter) match(r *Route) bool {
	return (f.Family == 0 || (f.Family == IPv4) == r.is4()) &&
		(f.Table == 0 || f.Table == r.Table) &&
		(f.Dev == 0 || f.Dev == r.Dev || slices.ContainsFunc(r.Hops, func(h Hop) bool { return h.Dev == f.Dev })) &&
		(f.Protocol == 0 || f.Protocol == r.Protocol) &&
		(f.Type == 0 || f.Type == r.Type)
}
