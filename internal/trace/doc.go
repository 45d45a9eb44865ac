// Package trace says what the rules of a namespace would do with a packet that
// nobody sends: which one drops it, or translates its destination.
//
// It knows the expressions that firewalls write most: comparisons of addresses,
// ports, interfaces and connection states, sets of them, and of the matches that
// iptables brings along tcp, udp, addrtype, conntrack and comment. What it does not
// know, and what depends on parts of the packet that are not given, may match or
// may not; an outcome that hangs on that is not Certain. So a Certain drop is one,
// and no outcome at all means that nothing here drops the packet, as far as
// nftables shows it: rules of iptables-legacy are not among them.
//
// Attributes and values are those of linux/netfilter/nf_tables.h and of the
// headers of the matches in linux/netfilter.
package trace
