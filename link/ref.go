package link

import (
	"strconv"

	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
)

// Ref names another link in a [Spec] or a filter: a Link that was made or read, or
// a name, or an index. The zero Ref is no link.
//
//	link.Spec{Name: "web0", Master: br.Ref()}
//	link.Spec{Name: "web0", Master: link.Ref{Name: "br0"}}
//
// An index is that of another link in another namespace. The Ref of a Link knows
// the Link's namespace, and a call that looks for it in another one returns
// os.ErrInvalid. A Name may be an alternative one. A name that is missing is
// os.ErrNotExist.
type Ref struct {
	Name  string `json:",omitempty"`
	Index int    `json:",omitempty"`

	ns      *netns.NS // of the Link; nil: the one where the link is looked for
	unbound bool      // it is of a Link that has no namespace
}

// Ref returns the Ref of the link, to name it in a Spec or a filter. That of the
// zero Link is the zero Ref.
func (l Link) Ref() Ref { return Ref{Index: l.Index, ns: l.ns, unbound: l.ns == nil && l.Index != 0} }

// String returns the name or the index; "" is no link.
func (r Ref) String() string {
	if r.Name != "" || r.Index == 0 {
		return r.Name
	}
	return strconv.Itoa(r.Index)
}

// check refuses what no link can be; what says what it is for.
func (r Ref) check(what string) error {
	switch {
	case r.unbound:
		return errUnbound()
	case r.Index < 0 || r.Index > 1<<31-1:
		return refuse.Input("%s %d is not an index (1 to 2147483647, or 0 for none)", what, r.Index)
	case r.Name == "":
		return nil
	case r.Index != 0:
		return refuse.Input("%s has the name %s and the index %d: give one of them", what, r.Name, r.Index)
	}
	if err := linkname.CheckAlt(r.Name); err != nil {
		return &causeError{text: what + ": " + err.Error(), err: err}
	}
	return nil
}
