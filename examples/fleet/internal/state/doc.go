// Package state has the values that a fleet keeps in its store: their keys, their JSON form, and what makes one valid.
//
// All keys of a fleet lie below /boxwire/fleet/NAME/:
//
//	config                the Config
//	claim/10.100.7.0-24   the Claim of a prefix by a node; no lease
//	node/ID               the Node; no lease
//	alive/ID              the Alive of a node's agent; the only key with a lease
//	dead/ID               the Dead of a node that was found dead; no lease
//
// Every value has a version. A reader ignores fields that it does not know and refuses a version that is newer than its own.
// What cannot be decoded, or contradicts itself, is named in [Snapshot.Skipped] and otherwise ignored: nothing that somebody
// else writes into the store makes an agent fail.
package state
