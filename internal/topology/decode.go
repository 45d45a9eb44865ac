package topology

import (
	"encoding/json"
	"io"
	"slices"
)

// Decode reads a snapshot that was written as JSON.
func Decode(r io.Reader) (*Snapshot, error) {
	s := new(Snapshot)
	if err := json.NewDecoder(r).Decode(s); err != nil {
		return nil, err
	}
	s.Namespaces = slices.DeleteFunc(s.Namespaces, func(n *Namespace) bool { return n == nil })
	for _, n := range s.Namespaces {
		// The kernel has one link of a name. Writers rely on it: they find the ports of a link by its name.
		names := map[string]bool{"": true}
		n.Links = slices.DeleteFunc(n.Links, func(l *Link) bool {
			twice := l == nil || names[l.Name]
			if !twice {
				names[l.Name] = true
			}
			return twice
		})
	}
	s.sort()
	return s, nil
}
