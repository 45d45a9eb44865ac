package link

// Filter chooses which links [List] returns. A zero field chooses nothing; the
// zero Filter means every link. The kernel itself filters, so that a list of few
// among many is cheap.
type Filter struct {
	Kind   string // the kernel's name of the kind: "bridge", "veth", ...
	Master int    // ports of the bridge, bond or VRF with this index
}

// match reports what the kernel's filter decides: it passes over a kind that it
// has no module for.
func (f Filter) match(l *Link) bool {
	return (f.Kind == "" || f.Kind == l.Kind) && (f.Master == 0 || f.Master == l.Master)
}
