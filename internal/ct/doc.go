// Package ct reads and deletes flows of the connection tracking table.
//
// Attribute numbers and meanings are those of
// linux/netfilter/nfnetlink_conntrack.h. What the kernel can filter differs:
//
//   - a dump by parts of the original tuple (CTA_FILTER): since 5.8, so that
//     every supported kernel has it;
//   - not for both families in one dump: EOPNOTSUPP;
//   - a dump by parts of the reply tuple: wrong until 6.5 (the flags of the
//     original tuple are applied to it), and not used here but in deletes, which
//     are newer;
//   - a delete by parts of a tuple: since 6.11; older kernels answer
//     EOPNOTSUPP or, where they take the tuple for a whole one, EINVAL;
//   - ports are compared for TCP and UDP only: a filter that names a port of
//     another protocol matches every flow of that protocol;
//   - IPv6 addresses are compared the wrong way round: a filter matches all but
//     the one that it names (seen in 6.18, and in the source since 5.8). It is
//     never given one here;
//   - the status (CTA_STATUS_MASK) since 5.15; a kernel that does not know it
//     ignores it.
//
// A filter that says too little may narrow a dump, for what a dump brings is
// compared again here; it must never stand in a delete.
package ct
