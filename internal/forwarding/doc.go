// Package forwarding makes the links of a host forward for networks on some of them,
// and sets them back.
//
// IPv4 has a setting for each link, which is written over netlink: a write of
// /proc/sys takes longer the more namespaces there are, and fails where /proc/sys is
// read-only. IPv6 has force_forwarding for each link since Linux 6.17. Older kernels
// have only the global switch all.forwarding, which sets the links' forwarding, too. A
// link that forwards ignores router advertisements unless its accept_ra is 2: where it
// is 1, it becomes 2 before the switch, or the host would lose its default route.
//
// Every step is a [Change] of one setting of one link, with the value before and after:
// [Apply] writes the values after, [Revert] those before, in the opposite order. The
// caller records the changes before it applies them, so that they can be reverted after
// a crash.
package forwarding
