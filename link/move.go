package link

import "net"

// MoveOptions says what [Link.Move] changes besides the namespace. The zero value
// changes nothing.
type MoveOptions struct {
	Name  string           // name in the new namespace, which may exist in the old one; "" keeps it
	Index int              // index in the new namespace, Linux 5.13; 0 keeps it if it is free
	MTU   int              // bytes; 0 keeps it
	MAC   net.HardwareAddr // hardware address; nil keeps it
	Up    bool             // brings the link up; without it, it is down after the move
}
