// Package nfttext writes nftables rules and sets as text, the way nft lists them.
//
// [Read] reads the ruleset of a namespace over netlink and [Ruleset.Lines] lists it. A
// [Writer] writes single rules of which the caller has the expressions.
//
// The text is nft's wherever the expression is known. What rules of iptables carry (xt
// matches and targets) is written as `xt match "tcp" dport 8080`. Of an expression that is
// not known there is its name in angle brackets. Names and comments are written so that
// nothing unprintable gets to a terminal. All output is bounded.
//
// Numbers of expressions, attributes and data types are those of
// linux/netfilter/nf_tables.h and of nft, which types the keys of sets (datatype.h of its
// sources; `nft describe` shows the names).
package nfttext
