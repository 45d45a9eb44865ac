package link

// IFB is an intermediate functional block: packets that a traffic control action
// redirects into it pass its queueing discipline and go on where they came from.
// It is how what comes in is shaped. See ip-link(8) and tc-mirred(8).
//
// Needs the kernel's module "ifb".
type IFB struct{}

func (IFB) name() string { return "ifb" }

func (IFB) check(*Spec) error { return nil }

func (k IFB) fields() (Kind, []field) { return &k, nil }
