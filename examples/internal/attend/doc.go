// Package attend looks after a command that a program runs in a box: it passes signals on and returns the command's status.
package attend
