package nat

import "errors"

// ErrDamaged is that a table is there, and is not as it should be.
var ErrDamaged = errors.New("the table is damaged")
