package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

var altNameTable = &table[string]{
	encode: func(index int, name *string, _ edit) nl.Request {
		return linkProps(unix.RTM_DELLINKPROP, index, []string{*name})
	},
	subject: func(name *string, link string) string { return "alternative name " + *name + " of link " + link },
	cause: func(_ *string, _ edit, e *nl.Error) error {
		switch e.Errno {
		case unix.ENOENT, unix.EINVAL:
			return &causeError{text: "the link does not have this alternative name", is: os.ErrNotExist, err: e}
		case unix.EOPNOTSUPP:
			return &causeError{text: "alternative names need Linux 5.5: " + e.Error(), is: errors.ErrUnsupported, err: e}
		}
		return e
	},
}

// DeleteAltNames removes alternative names (Spec.AltNames) from the link. A name
// that is missing or another link's is os.ErrNotExist. The others are removed all
// the same; the error names each that was not. [Link.Update] adds names. Linux 5.5.
func (l Link) DeleteAltNames(ctx context.Context, names ...string) error {
	return altNameTable.each(ctx, l, "link.DeleteAltNames", editDelete, names, checkAltNames(names))
}

func checkAltNames(names []string) error {
	for _, n := range names {
		if err := linkname.CheckAlt(n); err != nil {
			return err
		}
	}
	return nil
}

// linkProps builds the message that adds or removes alternative names.
func linkProps(typ uint16, index int, names []string) nl.Request {
	b := appendIfInfo(nil, index, 0, 0)
	b, at := nl.Begin(b, unix.IFLA_PROP_LIST)
	for _, n := range names {
		b = nl.AppendString(b, unix.IFLA_ALT_IFNAME, n)
	}
	nl.End(b, at)
	r := nl.Request{Type: typ, Body: b, Names: linkNames}
	if typ == unix.RTM_NEWLINKPROP {
		r.Flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL | unix.NLM_F_APPEND
	}
	return r
}

// explainNames says which other link than that with the index has an alternative name.
func explainNames(names []string, e *nl.Error, index int, find func(name string) (Link, error)) error {
	holder := ""
	for _, n := range names {
		if l, err := find(n); err == nil && l.Index != index {
			holder = fmt.Sprintf(": %s is one of link %s", n, l.Name)
			break
		}
	}
	list := strings.Join(names, ", ")
	switch e.Errno {
	case unix.EEXIST:
		return exist(e, "one of the alternative names %s is taken%s", list, holder)
	case unix.EOPNOTSUPP:
		return &causeError{text: "alternative names need Linux 5.5: " + e.Error(), err: e}
	}
	return e
}
