package route

import "github.com/boxwire/boxwire/internal/nl"

// ErrInterrupted is in the errors of lists that were not complete because the
// table changed while it was read: of [All] at once, of the others after 50
// tries.
var ErrInterrupted = nl.ErrInterrupted
