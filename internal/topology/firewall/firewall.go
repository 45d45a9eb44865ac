// Package firewall reads for package topology what the firewall of a namespace translates, and why a
// published port does not answer. It is a package of its own because topology is what tests of package
// nat are drawn with, and so cannot import it.
package firewall

import "errors"

// ErrForeign is the answer of Why for a port of another firewall.
var ErrForeign = errors.New("only ports of package nat are examined")
