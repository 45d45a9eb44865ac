package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// explain says what the kernel meant by its refusal to make the link: most
// errnos come without a message and stand for several causes. It may ask the
// kernel, as the call has failed already. taken says that a link with the
// outer name was seen right after.
func (c *creation) explain(e *nl.Error, taken bool) error {
	s := c.spec
	switch e.Errno {
	case unix.EEXIST, unix.EBUSY:
		if s.Index != 0 {
			if l, ok := c.look(&c.end, s.Index); ok {
				return exist(e, "index %d is taken in netns %s, by link %s", s.Index, c.end.ns, l.Name)
			}
		}
		if taken {
			return exist(e, "the name %s is taken in netns %s", s.Name, c.end.ns)
		}
		if c.peer == nil {
			break
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
	case unix.EPERM:
		if e.Msg != "" {
			break // the kernel means something else
		}
		for _, o := range []*end{c.peer, &c.end} {
			if o != nil && !o.ns.Equal(c.ns) {
				return &causeError{text: "CAP_NET_ADMIN is needed over this namespace and over " + o.ns.String() + ": " + e.Error(), err: e}
			}
		}
		return &causeError{text: "CAP_NET_ADMIN is needed over this namespace: " + e.Error(), err: e}
	case unix.ENODEV:
		if s.Parent != 0 {
			if _, err := read(context.WithoutCancel(c.ctx), c.ns, c.send, "", s.Parent); errors.Is(err, os.ErrNotExist) {
				return notExist(fmt.Sprintf("parent %d does not exist in netns %s", s.Parent, c.ns), e)
			}
		}
	case unix.EOPNOTSUPP:
		if strings.Contains(e.Msg, "device type") {
			return &causeError{
				text: fmt.Sprintf("the kernel cannot make links of kind %s; they come with its module %s: %v", s.Kind.name(), s.Kind.name(), e),
				is:   errors.ErrUnsupported, err: e,
			}
		}
		if s.Master == 0 {
			return &causeError{text: fmt.Sprintf("the kernel has %ss, but not with such options: %v", s.Kind.name(), e), is: errors.ErrUnsupported, err: e}
		}
	}
	return c.explainMaster(e, &c.end)
}

// explainMaster says what a refusal has to do with the master of s.
func (c *creation) explainMaster(e *nl.Error, at *end) error {
	s := at.spec
	if s.Master == 0 {
		return e
	}
	switch e.Errno {
	case unix.EXFULL:
		return &causeError{text: fmt.Sprintf("master %d is full: a bridge takes at most 1,023 ports: %v", s.Master, e), err: e}
	case unix.EINVAL, unix.ENODEV, unix.EOPNOTSUPP:
		m, ok := c.look(at, s.Master)
		switch {
		case !ok:
			// The kernel says EINVAL here, which is not what it is.
			return notExist(fmt.Sprintf("master %d does not exist in netns %s", s.Master, at.ns), e)
		case e.Errno == unix.EOPNOTSUPP:
			return &causeError{text: fmt.Sprintf("master %d (%s) takes no ports: %v", s.Master, m.Name, e), err: e}
		}
	}
	return e
}

// look reads a link to find out about a failure, even when ctx is done by now.
// ok is false only when the kernel says that there is none.
func (c *creation) look(at *end, index int) (l Link, ok bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), time.Second)
	defer cancel()
	l, err := read(ctx, at.ns, at.conn, "", index)
	return l, err == nil || !errors.Is(err, os.ErrNotExist)
}

// named reports whether there is a link of that name where the new one was to be.
func (c *creation) named(name string) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), time.Second)
	defer cancel()
	_, err := read(ctx, c.end.ns, c.end.conn, name, 0)
	return err == nil
}

func exist(err error, format string, args ...any) error {
	return &causeError{text: fmt.Sprintf(format, args...), is: os.ErrExist, err: err}
}
