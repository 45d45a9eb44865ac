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
		if s := c.spec; s.Parent.Index != 0 {
			if _, there := c.look(&end{ns: c.ns, conn: c.send}, s.Parent.Index); !there {
				err = notExist(fmt.Sprintf("parent %s does not exist in netns %s", s.Parent, c.ns), e)
			}
		}
	case unix.EOPNOTSUPP:
		err = c.explainUnsupported(e)
	}
	if err == nil {
		err = c.explainMaster(e, &c.end)
	}
	return err
}

// explainTaken says which name or index is taken; nil if none is found.
func (c *creation) explainTaken(e *nl.Error) error {
	s := c.spec
	taken := c.named(s.Name) // at once, before it goes
	if s.Index != 0 {
		if l, ok := c.look(&c.end, s.Index); ok {
			return exist(e, "index %d is taken in netns %s, by link %s", s.Index, c.end.ns, l.Name)
		}
	}
	switch {
	case taken:
		return c.nameTaken(e)
	case c.peer == nil && e.Errno == unix.EBUSY && s.Parent.Index != 0:
		return c.explainParent(e)
	case c.peer == nil:
		return nil
	}
	p := c.peer.spec
	if p.Index != 0 {
		if l, ok := c.look(c.peer, p.Index); ok {
			return exist(e, "the peer's index %d is taken in netns %s, by link %s", p.Index, c.peer.ns, l.Name)
		}
	}
	if e.Errno == unix.EEXIST {
		return exist(e, "the peer's name %s is taken in netns %s", p.Name, c.peer.ns)
	}
	return nil
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
	kind := c.spec.Kind
	text := ""
	switch {
	case strings.Contains(e.Msg, "device type"):
		text = fmt.Sprintf("the kernel cannot make links of kind %s; they come with its module %s: %v", kind.name(), moduleOf(kind.name()), e)
	case c.spec.Master.Index == 0:
		text = fmt.Sprintf("the kernel has links of kind %s, but not with %s: %v", kind.name(), optionNames(kind), e)
	default:
		return nil
	}
	return &causeError{text: text, is: errors.ErrUnsupported, err: e}
}

// explainMaster says what a refusal has to do with the master of s.
func (c *creation) explainMaster(e *nl.Error, at *end) error {
	s := at.spec
	if s.Master.Index == 0 {
		return e
	}
	switch e.Errno {
	case unix.EXFULL:
		return &causeError{text: fmt.Sprintf("master %s is full: a bridge takes at most 1,023 ports: %v", s.Master, e), err: e}
	case unix.EINVAL, unix.ENODEV, unix.EOPNOTSUPP:
		m, ok := c.look(at, s.Master.Index)
		switch {
		case !ok:
			// The kernel answers EINVAL here, although the index is valid.
			return notExist(fmt.Sprintf("master %s does not exist in netns %s", s.Master, at.ns), e)
		case e.Errno == unix.EOPNOTSUPP:
			return &causeError{text: fmt.Sprintf("master %s (%s) takes no ports: %v", s.Master, m.Name, e), err: e}
		}
	}
	return e
}

// nameTaken says who has the name, which may be an alternative one.
func (c *creation) nameTaken(e *nl.Error) error {
	if l, err := c.find(&c.end, c.end.spec.Name, 0); err == nil && l.Name != c.end.spec.Name {
		return exist(e, "the name %s is taken in netns %s: it is an alternative name of link %s", c.end.spec.Name, c.end.ns, l.Name)
	}
	return exist(e, "the name %s is taken in netns %s", c.end.spec.Name, c.end.ns)
}

// explainParent says why nothing can lie on the parent: a link gives what it receives
// to a bridge or bond, to its macvlans or to its ipvlans, and to one of them only.
func (c *creation) explainParent(e *nl.Error) error {
	s := c.spec
	at := end{ns: c.ns, conn: c.send}
	parent, _ := c.look(&at, s.Parent.Index)
	if parent.Master != 0 {
		master, _ := c.look(&at, parent.Master)
		return &causeError{text: fmt.Sprintf("parent %s (%s) is a port of %s: nothing of kind %s can lie on it: %v", s.Parent, parent.Name, master.Name, s.Kind.name(), e), err: e}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), time.Second)
	defer cancel()
	links, _ := list(ctx, c.ns, Filter{}, nil)
	for _, l := range links {
		if l.ParentIndex == s.Parent.Index && l.LinkNSID < 0 && l.Kind != "vlan" {
			return &causeError{text: fmt.Sprintf("parent %s (%s) has link %s of kind %s on it: nothing of kind %s can lie there: %v", s.Parent, parent.Name, l.Name, l.Kind, s.Kind.name(), e), err: e}
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
func optionNames(k Kind) string {
	_, fields := k.fields()
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
func (c *creation) find(at *end, name string, index int) (Link, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), time.Second)
	defer cancel()
	return read(ctx, at.ns, at.conn, name, index)
}

// look is find by an index. ok is false only when the kernel says that there is none.
func (c *creation) look(at *end, index int) (l Link, ok bool) {
	l, err := c.find(at, "", index)
	return l, err == nil || !errors.Is(err, os.ErrNotExist)
}

// named reports whether there is a link of that name where the new one was to be.
func (c *creation) named(name string) bool {
	_, err := c.find(&c.end, name, 0)
	return err == nil
}

func exist(err error, format string, args ...any) error {
	return &causeError{text: fmt.Sprintf(format, args...), is: os.ErrExist, err: err}
}
