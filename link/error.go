package link

import "github.com/boxwire/boxwire/internal/nl"

// ErrInterrupted is in the error of a list that could not be completed: the table
// changed during each of 50 attempts to read it.
var ErrInterrupted = nl.ErrInterrupted
