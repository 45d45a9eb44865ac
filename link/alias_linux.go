package link

import (
	"context"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// SetAlias sets the link's alias (Spec.Alias); "" removes it. A link that is gone
// is os.ErrNotExist.
func (l Link) SetAlias(ctx context.Context, alias string) error {
	const op = "link.SetAlias"
	switch {
	case len(alias) > 255:
		return fail.New(op, l.ns, l.subject(), refuse.Input("the alias has %d bytes; at most 255 are possible", len(alias)))
	case strings.ContainsRune(alias, 0):
		return fail.New(op, l.ns, l.subject(), refuse.Input("the alias %q has a NUL", alias))
	}
	b := nl.AppendAttr(appendIfInfo(nil, l.Index, 0, 0), unix.IFLA_IFALIAS, []byte(alias))
	return fail.New(op, l.ns, l.subject(), l.call(ctx, nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: linkNames}))
}

// SetGroup puts the link into a group (Spec.Group); 0 is the default group. A link
// that is gone is os.ErrNotExist.
func (l Link) SetGroup(ctx context.Context, group uint32) error {
	b := nl.AppendU32(appendIfInfo(nil, l.Index, 0, 0), unix.IFLA_GROUP, group)
	return fail.New("link.SetGroup", l.ns, l.subject(), l.call(ctx, nl.Request{Type: unix.RTM_NEWLINK, Body: b, Names: linkNames}))
}
