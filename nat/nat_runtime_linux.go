package nat

import (
	"slices"
	"sync"

	"github.com/boxwire/boxwire/internal/portlock"
)

// runtimeState is what a NAT holds in this process: locks, sockets, and what the kernel does not
// report any more.
type runtimeState struct {
	turn         chan struct{}  // holds a token while a change is under way, which has the following fields
	unlockFile   func()         // releases the lock file
	ports        *portlock.Lock // reserved ports
	elements     int            // of the table, as far as this program has changed it
	staleFlushed bool           // flows that the table contradicts were flushed
	noQuiet      bool           // the kernel lacks the family bridge
	minKeys      int            // elements of a map that Sync looks up instead of dumping the map; 0 for minKeys

	mu      sync.Mutex // guards the following fields
	facts   []item     // what the table said about the host when it was last read
	closed  bool
	proxies map[*Proxy]bool
}

// remember keeps the facts of the host among the items. They are lost to the kernel once another
// program removes the table.
func (n *NAT) remember(items []item) {
	facts := itemsOf(items, kindFact)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.facts = facts
}

// learn changes what is remembered by records that were deleted and added since.
func (n *NAT) learn(gone, added []item) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.facts = replaceItems(n.facts, slices.Concat(gone, added), added)
}

// forgotten returns the remembered facts that are not among the items.
func (n *NAT) forgotten(items []item) []item {
	n.mu.Lock()
	defer n.mu.Unlock()
	return replaceItems(n.facts, items, nil)
}
