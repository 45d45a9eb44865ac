// Package route keeps the routes, next hops and routing rules of a network
// namespace, and asks which way a packet would take.
//
//	err := route.Add(ctx, web,
//		route.Default(netip.MustParseAddr("10.88.0.1")),
//		route.To(netip.MustParsePrefix("10.99.0.0/16"), netip.MustParseAddr("10.88.0.7")),
//	)
//
// A [Route] is a value without a namespace: the same routes can be added in many.
// Links are meant by their index, in the namespace of the call; rules, as the
// kernel has it, mean them by name. What is listed can be added again as it is.
//
// # Verbs
//
// Many routes go in one call and are sent together.
//
//   - [Add] and [Append] make all of them or none;
//   - [Replace], [Change] and [Delete] go on past one that fails, and say which;
//   - [Flush] deletes what a [Filter] chooses;
//   - [Sync] makes the routes of an owner be those given, and touches only the
//     difference: the verb of a program that knows what it wants.
//
// An owner is a [Protocol] that nobody else uses; /etc/iproute2/rt_protos and
// linux/rtnetlink.h have those that are taken.
//
// Rules have [AddRules], [DeleteRules], [ListRules] and [SyncRules], next-hop
// objects [AddNextHops], [ReplaceNextHops], [DeleteNextHops], [GetNextHop] and
// [ListNextHops].
//
// # Lists and events
//
// [List] returns a slice, [All] a sequence that holds one reply of the kernel at
// a time, for full tables. Neither is ever incomplete in silence. That takes some
// care: the kernel does not flag a dump of routes that change underneath, and an
// IPv6 dump then lacks some. Both watch the changes while they read; List reads
// again, All ends with [ErrInterrupted].
//
// [Watch], [WatchRules] and [WatchNextHops] begin with the present state and go on
// with what changes. They tell of what the kernel does in silence, too, and begin
// again when events were lost.
//
// # Text
//
// [Route.String] writes a route as ip-route(8) does, and [Parse] reads it back.
//
// # Errors
//
// Errors are *netns.Error, one for each item that failed, joined. errors.Is finds
// os.ErrExist (it is there), os.ErrNotExist (no such route, rule, next hop or
// link), os.ErrPermission (no CAP_NET_ADMIN in the namespace's user namespace),
// os.ErrInvalid (refused before anything was sent), errors.ErrUnsupported (the
// kernel is too old, or was built without it), os.ErrClosed and the errors of ctx,
// besides the errno. A gateway that cannot be reached is ENETUNREACH for IPv4 and
// EHOSTUNREACH for IPv6, with the kernel's own words.
//
// # Cancellation
//
// rtnetlink carries a request out inside the system call that sends it, up to a
// hundred at a time. A context that is done keeps the next send from being made;
// Add then undoes the ones before.
//
// # Kernels
//
// Everything works on Linux 5.10 and newer where no later version is said; see
// rtnetlink(7), ip-route(8), ip-rule(8), ip-nexthop(8) and linux/rtnetlink.h. On
// other systems each call returns errors.ErrUnsupported.
package route
