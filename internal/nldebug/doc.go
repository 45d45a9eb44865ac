// Package nldebug writes a line for each netlink request and answer of the program
// to its standard error, if the environment variable BOXWIRE_DEBUG, a list with
// commas, has "netlink" in it when the program begins:
//
//	BOXWIRE_DEBUG=netlink go run ./examples/quickstart
//
// A line has the message's type, flags, sequence number, errno and length, by the
// names of the kernel's headers. It has nothing of the body, which may hold a key.
//
// Packages link, route and nat import it. Package netns does not: log/slog would be
// a good part of a small program.
package nldebug
