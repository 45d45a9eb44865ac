package link

// Filter selects the links that [List] returns: those that match each field that is
// set. The zero Filter selects all. The kernel filters by Kind and Master, so a
// list of few links among many is cheap; for the other fields all links are read.
type Filter struct {
	Kind   string // the kernel's name of the kind: "bridge", "veth", ...
	Master Ref    // ports of this bridge, bond or VRF

	Group       uint32 // links of this group (Spec.Group)
	AliasPrefix string // links whose alias (Spec.Alias) begins with it
}

// match reports whether the filter selects the link, by what a Link has. It repeats
// the kernel's decision: the kernel ignores a filter by a kind whose module is not
// loaded.
func (f Filter) match(l *Link) bool {
	return (f.Kind == "" || f.Kind == l.Kind) && (f.Master.Index == 0 || f.Master.Index == l.Master) && (f.Group == 0 || f.Group == l.Group)
}
