package state

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
)

// ID is the identity of a node: 16 random bytes, kept in a file of the node. It does not depend on an address or a name, so a
// node that comes back with others is the same node.
type ID [16]byte

// NewID draws an ID.
func NewID() ID {
	var id ID
	_, _ = rand.Read(id[:]) // does not fail
	return id
}

// ParseID reads the form that [ID.String] writes: 32 hexadecimal digits, lower case. The error is os.ErrInvalid.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != s {
		return ID{}, invalid("node id %.40q: want 32 hexadecimal digits", s)
	}
	return ID(b), nil
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short is the beginning of the ID, for messages that also say the node's name.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// Hash is a number that spreads nodes over a pool's prefixes. It depends on the ID alone, so a node that claims again in an
// empty store gets the prefix that it had, if it was its first choice.
func (id ID) Hash() uint64 { return binary.BigEndian.Uint64(id[:8]) }

// step is a number below n that has no divisor in common with n: counting by it reaches every number below n.
func (id ID) step(n uint64) uint64 {
	step := binary.BigEndian.Uint64(id[8:]) % n
	for gcd(step, n) != 1 {
		step = (step + 1) % n
	}
	return step
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// MarshalText writes the form of [ID.String].
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [ParseID] reads.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
