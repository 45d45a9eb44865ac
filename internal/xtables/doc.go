// Package xtables reads what rules of iptables carry: the structures of its matches and
// targets, as iptables-nft puts them into expressions of nftables (NFTA_MATCH_INFO and
// NFTA_TARGET_INFO).
//
// The layouts are those of the headers linux/netfilter/xt_*.h and linux/netfilter/nf_nat.h, in
// the machine's byte order. A structure of a revision that is not known, or that is too
// short, is not read.
package xtables
