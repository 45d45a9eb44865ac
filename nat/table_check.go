package nat

import "errors"

// ErrDamaged reports a table whose rules or elements are not the expected ones.
var ErrDamaged = errors.New("the table is damaged")
