package topology

import (
	"context"

	"github.com/boxwire/boxwire/netns"
)

// Options say what Read and Watch read. The zero value is the machine as its own namespace shows it.
type Options struct {
	// Host is the namespace that the others are boxes of; nil is the caller's own.
	Host *netns.NS

	// Some selects the namespaces to read. nil selects all.
	Some func(netns.Info) bool

	// Firewall reads the firewall of a namespace. nil reads none. It is called by several goroutines
	// at a time.
	Firewall func(context.Context, *netns.NS) (Firewall, error)
}

// A Firewall is what the firewall of a namespace translates.
type Firewall struct {
	Networks []Network
	Ports    []Port
	Notes    []string // what could not be read, or not decoded
}
