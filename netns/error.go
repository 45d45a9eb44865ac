package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Errors for paths and descriptors that are not network namespaces. Both wrap
// os.ErrInvalid.
var (
	// ErrNotNamespace reports a file, directory, socket or other thing that is not a
	// namespace.
	ErrNotNamespace = refuse.Input("not a namespace")

	// ErrOtherKind reports a mount, user or other namespace (namespaces(7)).
	ErrOtherKind = refuse.Input("not a network namespace")
)

func errNotA(what string) error { return fmt.Errorf("this is a %s: %w", what, ErrNotNamespace) }

var errNil = refuse.Input("no namespace: the handle is nil")

// Error is the one type of the errors of netns, link, route and nat:
//
//	link.Create link web0 in netns web: file exists (EEXIST): ...
//
// errors.Is and errors.As look into Err, the cause.
type Error struct {
	Op      string // package and function: "link.Create"
	NS      string // the namespace, as NS.String names it; "" where none is involved
	Subject string // what it was tried on: "link web0", "10.0.0.0/8 via 10.1.1.1"
	Err     error  // why it failed
}

// Error returns operation, subject, namespace and cause in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Subject != "" {
		b.WriteString(" " + e.Subject)
	}
	if e.NS != "" {
		b.WriteString(" in netns " + e.NS)
	}
	b.WriteString(": " + e.Err.Error())
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// IgnoreNotExist returns nil if err is os.ErrNotExist, and err otherwise. It suits deletes:
//
//	err := netns.IgnoreNotExist(netns.Delete(ctx, "web"))
func IgnoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
