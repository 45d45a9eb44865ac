package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/privilege"
	"golang.org/x/sys/unix"
)

// explain says what the kernel meant by its refusal to make the link: most
// errnos come without a message and stand for several causes. It may ask the
// kernel, as the call has failed already.
func (c *creation) explain(e *nl.Error) error {
	var err error
	switch e.Errno {
	case unix.EEXIST, unix.EBUSY:
		err = c.explainTaken(e)
	case unix.EPERM:
		err = c.explainPermission(e)
	case unix.ENODEV:
		if parent := c.parent; parent.Index != 0 {
			if _, there := c.home.look(c.ctx, parent.Index); !there {
				err = notExist(fmt.Sprintf("parent %s does not exist in netns %s", parent, c.home.ns), e)
			}
		}
	case unix.EOPNOTSUPP:
		err = c.explainUnsupported(e)
	}
	if err == nil {
		err = c.end.explainMaster(c.ctx, c.end.master, e)
	}
	return err
}

// explainTaken says which name or index is taken; nil if none is found.
func (c *creation) explainTaken(e *nl.Error) error {
	taken := c.end.holder(c.ctx, c.end.name) // at once, before it goes
	if err := c.end.indexTaken(c.ctx, "index", e); err != nil {
		return err
	}
	switch {
	case taken != nil && taken.Name != c.end.name:
		return exist(e, "the name %s is taken in netns %s: it is an alternative name of link %s", c.end.name, c.end.ns, taken.Name)
	case taken != nil:
		return exist(e, "the name %s is taken in netns %s", c.end.name, c.end.ns)
	case c.peer == nil && e.Errno == unix.EBUSY && c.parent.Index != 0:
		return c.explainParent(e)
	case c.peer == nil:
		return nil
	}
	if err := c.peer.indexTaken(c.ctx, "the peer's index", e); err != nil {
		return err
	}
	if e.Errno == unix.EEXIST {
		return exist(e, "the peer's name %s is taken in netns %s", c.peer.name, c.peer.ns)
	}
	return nil
}

// indexTaken says which link has the index that an end was to have; nil if none has.
func (e *end) indexTaken(ctx context.Context, what string, cause error) error {
	if e.wanted == 0 {
		return nil
	}
	l, ok := e.look(ctx, e.wanted)
	if !ok {
		return nil
	}
	return exist(cause, "%s %d is taken in netns %s, by link %s", what, e.wanted, e.ns, l.Name)
}

// explainPermission says over which namespace the caller lacks a capability.
func (c *creation) explainPermission(e *nl.Error) error {
	if e.Msg != "" || e.Hint != "" {
		return nil // the kernel means something else, or it is this namespace's
	}
	for _, o := range []*end{c.peer, &c.end} {
		if o == nil {
			continue
		}
		if hint := privilege.NetAdmin.MissingIn(o.ns); hint != "" {
			return &causeError{text: fmt.Sprintf("over netns %s, %s: %v", o.ns, hint, e), err: e}
		}
	}
	return nil
}

// explainUnsupported says which kind or option the kernel does not have.
func (c *creation) explainUnsupported(e *nl.Error) error {
	kind, text := c.kind.kind, ""
	switch {
	case strings.Contains(e.Msg, "device type"):
		text = fmt.Sprintf("the kernel cannot make links of kind %s; they come with its module %s: %v", kind.name(), moduleOf(kind.name()), e)
	case c.end.master.Index == 0:
		text = fmt.Sprintf("the kernel has links of kind %s, but not with %s: %v", kind.name(), optionNames(c.kind.fields), e)
	default:
		return nil
	}
	return &causeError{text: text, is: errors.ErrUnsupported, err: e}
}

// explainMaster says what a refusal has to do with the master that a link was to get.
func (p *nsConn) explainMaster(ctx context.Context, master Ref, cause *nl.Error) error {
	if master.Index == 0 {
		return cause
	}
	switch cause.Errno {
	case unix.EXFULL:
		return &causeError{text: fmt.Sprintf("master %s is full: a bridge takes at most 1,023 ports: %v", master, cause), err: cause}
	case unix.EINVAL, unix.ENODEV, unix.EOPNOTSUPP:
		m, ok := p.look(ctx, master.Index)
		switch {
		case !ok:
			// The kernel answers EINVAL here, although the index is valid.
			return notExist(fmt.Sprintf("master %s does not exist in netns %s", master, p.ns), cause)
		case cause.Errno == unix.EOPNOTSUPP:
			return &causeError{text: fmt.Sprintf("master %s (%s) takes no ports: %v", master, m.Name, cause), err: cause}
		}
	}
	return cause
}

// explainParent says why nothing can lie on the parent: a link gives what it receives
// to a bridge or bond, to its macvlans or to its ipvlans, and to one of them only.
func (c *creation) explainParent(e *nl.Error) error {
	ref, kind := c.parent, c.kind.kind.name()
	parent, _ := c.home.look(c.ctx, ref.Index)
	if parent.Master != 0 {
		master, _ := c.home.look(c.ctx, parent.Master)
		return &causeError{text: fmt.Sprintf("parent %s (%s) is a port of %s: nothing of kind %s can lie on it: %v", ref, parent.Name, master.Name, kind, e), err: e}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), time.Second)
	defer cancel()
	links, _ := list(ctx, c.home.ns, Filter{}, nil)
	for _, l := range links {
		if l.ParentIndex == ref.Index && l.LinkNSID < 0 && l.Kind != "vlan" {
			return &causeError{text: fmt.Sprintf("parent %s (%s) has link %s of kind %s on it: nothing of kind %s can lie there: %v", ref, parent.Name, l.Name, l.Kind, kind, e), err: e}
		}
	}
	return e
}

// moduleOf is the kernel's module that brings a kind of link.
func moduleOf(kind string) string {
	switch kind {
	case "vlan":
		return "8021q"
	case "bond":
		return "bonding"
	case "gre", "gretap", "erspan":
		return "ip_gre"
	case "ip6gre", "ip6gretap", "ip6erspan":
		return "ip6_gre"
	case "ip6tnl":
		return "ip6_tunnel"
	case "vti":
		return "ip_vti"
	case "vti6":
		return "ip6_vti"
	case "xfrm":
		return "xfrm_interface"
	case "ppp":
		return "ppp_generic"
	case "batadv":
		return "batman-adv"
	case "can":
		return "can-dev"
	case "lowpan":
		return "ieee802154_6lowpan"
	}
	return kind
}

// optionNames names what is set of a kind.
func optionNames(fields []field) string {
	var names []string
	for i := range fields {
		if f := &fields[i]; f.form.isSet(f.value, false) {
			names = append(names, f.name)
		}
	}
	if names == nil {
		return "what was asked for beside"
	}
	return strings.Join(names, ", ")
}

// find reads a link to find out about a failure, even when ctx is done by now.
func (p *nsConn) find(ctx context.Context, name string, index int) (Link, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return read(ctx, p.ns, p.conn, name, index)
}

// look is find by an index. ok is false only when the kernel says that there is none.
func (p *nsConn) look(ctx context.Context, index int) (l Link, ok bool) {
	l, err := p.find(ctx, "", index)
	return l, err == nil || !errors.Is(err, os.ErrNotExist)
}

// holder returns the link that has a name, which may be an alternative one; nil if none
// has it.
func (p *nsConn) holder(ctx context.Context, name string) *Link {
	l, err := p.find(ctx, name, 0)
	if err != nil {
		return nil
	}
	return &l
}

func exist(err error, format string, args ...any) error {
	return &causeError{text: fmt.Sprintf(format, args...), is: os.ErrExist, err: err}
}
