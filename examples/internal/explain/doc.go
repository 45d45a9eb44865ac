// Package explain says in words why a published port or a box is not reached, and what to do about it. It is what
// `run explain` and the CNI plugin's explain have in common: the words for the causes that package nat finds, and a look into
// the box. It only reads.
package explain

// The exit statuses of a program that explains.
const (
	StatusFine   = 0   // no cause is found on this host
	StatusWrong  = 1   // something is wrong
	StatusMaybe  = 2   // what is found holds for some visitors only, or depends on something unknown
	StatusFailed = 125 // the program could not look
)
