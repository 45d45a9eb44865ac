package link

import "net"

// MoveOptions say what becomes of a link that is moved to another namespace,
// besides. The zero value changes nothing.
type MoveOptions struct {
	Name  string           // its name there, which may exist here; "" keeps it
	Index int              // its index there (Linux >= 5.13); 0 keeps it where it is free
	MTU   int              // 0 keeps it
	MAC   net.HardwareAddr // nil keeps it
	Up    bool             // brings it up there; else it is down
}
