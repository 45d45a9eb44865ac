package link

// Kind says what a new link is, with the options of that kind: [Bridge] or
// [Veth]. The set is closed: other packages cannot implement Kind.
type Kind interface {
	// name is the kernel's name of the kind (IFLA_INFO_KIND).
	name() string

	// check refuses bad options. outer is the spec that holds the kind.
	check(outer *Spec) error

	encoder
}
