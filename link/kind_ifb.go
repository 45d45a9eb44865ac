package link

// IFB is an intermediate functional block. A packet that a traffic control action
// redirects into it passes its queueing discipline and then continues where it came
// from. That is how incoming traffic is shaped; [Link.SetRate] makes one for its
// link. It needs the kernel's module ifb. See ip-link(8) and tc-mirred(8).
type IFB struct{}

func (IFB) name() string { return "ifb" }

func (IFB) check(*Spec) error { return nil }

func (k IFB) fields() (Kind, []field) { return &k, nil }
