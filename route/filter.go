package route

// Family is an address family.
type Family uint8

// The families. They are not the numbers of AF_*.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Filter chooses which routes [List] returns. A zero field chooses nothing; the
// zero Filter means every route of every table, the kernel's own
// ([TableLocal]) too. The kernel itself filters.
type Filter struct {
	Family   Family   // IPv4 or IPv6
	Table    Table    // one table; one that does not exist has no routes
	Dev      int      // routes that leave by the link with this index; os.ErrNotExist if there is none
	Protocol Protocol // routes that this one made
	Type     Type     // routes of one type
}

// match reports what the kernel's filter decides, for kernels and families that
// pass over a part of it.
func (f Filter) match(r *Route) bool {
	return (f.Table == 0 || f.Table == r.Table) &&
		(f.Dev == 0 || f.Dev == r.Dev) &&
		(f.Protocol == 0 || f.Protocol == r.Protocol) &&
		(f.Type == 0 || f.Type == r.Type)
}
