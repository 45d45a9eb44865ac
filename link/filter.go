package link

// Filter chooses which links [List] returns. A zero field chooses nothing; the
// zero Filter means every link. The kernel itself filters by Kind and Master, so that
// a list of few among many is cheap; for the others all links are read.
type Filter struct {
	Kind   string // the kernel's name of the kind: "bridge", "veth", ...
	Master Ref    // ports of this bridge, bond or VRF

	Group       uint32 // links of this group (Spec.Group)
	AliasPrefix string // links whose alias (Spec.Alias) begins with it
}

// match reports whether the filter chooses the link, as far as a Link says. It
// repeats what the kernel's filter decides, which ignores a kind that it has no
// module for.
func (f Filter) match(l *Link) bool {
	return (f.Kind == "" || f.Kind == l.Kind) && (f.Master.Index == 0 || f.Master.Index == l.Master) && (f.Group == 0 || f.Group == l.Group)
}
