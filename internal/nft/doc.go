// Package nft changes and reads nftables.
//
// A [Batch] collects messages about one table of the inet family, and with [Batch.In] about those
// of the same name of other families. [Conn.Commit] sends it as one transaction. Each transaction
// names the generation of the ruleset that it was built on (NFNL_BATCH_GENID). If any program
// commits in between, the kernel refuses the transaction, and Commit builds it again. What Build
// has read therefore still holds at the commit. If the kernel's answer is lost, the generation
// shows whether the transaction was committed.
//
// Expressions are encoded by github.com/google/nftables/expr. Tables, chains, sets, rules
// and elements are encoded by internal/nl, because that library's messages lack NLM_F_EXCL,
// and it does not split long lists. Attribute numbers and meanings are those of
// linux/netfilter/nf_tables.h. Everything works from Linux 5.10 on.
package nft
