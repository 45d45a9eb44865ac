// Package privilege says which capability a call lacks that the kernel has
// refused (capabilities(7), user_namespaces(7)). The kernel answers EPERM or EACCES
// and names none.
package privilege

import "fmt"

// Explain adds a hint to an error; an empty one changes nothing.
func Explain(err error, hint string) error {
	if err == nil || hint == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, hint)
}
