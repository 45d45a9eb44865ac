// Package trace evaluates what the rules of a namespace would do with a packet that is not
// sent: which rule drops it, or translates its destination.
//
// It knows the expressions that firewalls commonly use: comparisons of addresses, ports,
// interfaces and connection states, sets of them, and the matches tcp, udp, addrtype,
// conntrack and comment of iptables. An expression that it does not know, or that depends
// on an unknown part of the packet, may match or not. An outcome that depends on one is not
// Certain. A Certain drop is real. No outcome at all means that no rule here drops the
// packet, as far as nftables shows them: it does not show rules of iptables-legacy.
//
// [Ruleset.Forwards] evaluates the rules for all packets at once: which ports the rules of
// other programs lead where.
//
// Attributes and values are those of linux/netfilter/nf_tables.h and of the headers of the
// matches in linux/netfilter.
package trace
