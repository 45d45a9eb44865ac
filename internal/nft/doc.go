// Package nft sends batches to nftables and reads sets back.
//
// A [Batch] collects messages about one table of the inet family; [Conn.Commit]
// sends it as one transaction. Every transaction names the generation of the
// ruleset that it was built on (NFNL_BATCH_GENID): when anything was committed
// in between, by anyone, the kernel refuses it and Commit builds it anew. So
// whatever was read while building still holds at the commit, and a transaction
// of which the answer was lost is known to be committed or not.
//
// Expressions are encoded by github.com/google/nftables/expr; tables, chains,
// sets, rules and elements by internal/nl's encoder, because that library's
// messages lack NLM_F_EXCL and split nothing. Attribute numbers and meanings are
// those of linux/netfilter/nf_tables.h. All of it works from Linux 5.10 on.
package nft
