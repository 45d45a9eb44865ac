package link

import "github.com/boxwire/boxwire/internal/nl"

// ErrInterrupted is in the errors of lists that were not complete because the
// table changed while it was read, in each of 50 tries.
var ErrInterrupted = nl.ErrInterrupted
