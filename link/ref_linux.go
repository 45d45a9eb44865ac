package link

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// resolve puts the index in the place of a name, and refuses a link of another
// namespace than ns.
func (r *Ref) resolve(ctx context.Context, what string, ns *netns.NS) error {
	if err := r.check(what); err != nil {
		return err
	}
	if r.ns != nil && !r.ns.Equal(ns) {
		return refuse.Input("%s %d is a link of netns %s; in netns %s the index means another", what, r.Index, r.ns, ns)
	}
	if r.Name == "" {
		return nil
	}
	l, err := get(ctx, ns, r.Name, 0)
	if errors.Is(err, os.ErrNotExist) {
		return notExist(fmt.Sprintf("%s %s does not exist in netns %s", what, r.Name, ns), err)
	}
	*r = l.Ref()
	return err
}

// resolve resolves the links that the spec and the options of its kind name. ns is the
// namespace given to the call.
func (s *Spec) resolve(ctx context.Context, ns *netns.NS, o *options) error {
	own := ns
	if s.NS != nil {
		own = s.NS
	}
	if err := errors.Join(s.Master.resolve(ctx, "master", own), s.Parent.resolve(ctx, "parent", ns)); err != nil {
		return err
	}
	switch k := o.kind.(type) {
	case *VXLAN:
		return k.Underlay.resolve(ctx, "underlay", ns)
	case *Bond:
		return errors.Join(k.ActivePort.resolve(ctx, "active port", own), k.Primary.resolve(ctx, "primary port", own))
	}
	p := o.peer()
	if p == nil {
		return nil
	}
	if p.NS != nil {
		own = p.NS
	}
	return p.Master.resolve(ctx, "the peer's master", own)
}
