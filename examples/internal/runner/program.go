// Package runner is a program that runs commands in boxes. A box is a network namespace of its own, plugged into a bridge
// of the host, with published ports, and gone again when its command ends.
//
// The package keeps no state but in the kernel: ls, rm and gc read back from names, aliases and comments what there is. The
// namespace that the program is started in is the host. All programs that are made of this package see the same boxes of a
// host, so one gives a name to a box that no other has, and removes what another has left.
//
// It is not for a program that embeds a runner among other things: [Main] takes signals, and reads and writes the standard
// files. Such a program copies what it needs.
package runner

import (
	"context"
	"net/netip"
)

// Program is what the program is that [Main] makes. The zero Program is examples/run, where flags choose the network and the
// command line begins with those of a new box. Another Program has both fields, and a verb for a new box: run.
type Program struct {
	// Name is what messages and the usage call the program.
	Name string

	// Network says which network boxes are plugged into. It is called for each new box that is to be plugged in, before
	// anything is made. The box is not made if it fails.
	Network func(context.Context) (Network, error)
}

// Network is a network of boxes whose shape the program fixes. The first address of each subnet is the host's, the boxes'
// gateway. Another link of the host may have it too, as a /32 or a /128.
//
// What boxes of a network already use stays: while there is one, another Network of that bridge is refused, but for the MTU.
type Network struct {
	Bridge  string         // made for the first box and removed with the last; not a link that another program has made
	Subnets []netip.Prefix // where boxes' addresses come from, without host bits; at least one
	Trusted []netip.Prefix // the network's nat.Network.Trusted
	MTU     int            // of the bridge and the boxes, as the bridge is made; the kernel's default if it is 0
}
