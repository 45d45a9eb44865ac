package link

// Dummy is a link that drops what is sent into it, a place for addresses. It has a
// carrier whenever it is up. It needs the kernel's module dummy. See ip-link(8).
type Dummy struct{}

func (Dummy) name() string { return "dummy" }

func (Dummy) check(*Spec) error { return nil }

func (k Dummy) fields() (Kind, []field) { return &k, nil }
