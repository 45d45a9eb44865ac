// Package route adds, reads and watches the routes, next hops and routing rules of a
// network namespace, and looks up which way a packet would take.
//
//	err := route.Add(ctx, web,
//		route.Default(netip.MustParseAddr("10.88.0.1")),
//		route.To(netip.MustParsePrefix("10.99.0.0/16"), netip.MustParseAddr("10.88.0.7")),
//	)
//
// A [Route] is a value without a namespace: the same routes can be added in many. Routes
// name links by their index in the namespace of the call. Rules name them by name, as the
// kernel does. A listed route or rule can be added again.
//
// # From ip to route
//
//	ip route add default via ADDR        Add(ctx, ns, Default(addr)); To(prefix, addr) for others
//	ip route replace, append, change     Replace, Append, Change
//	ip route del, flush                  Delete, Flush
//	ip route add ... encap ip id 7 ...   Add with Route.Encap: IPEncap{ID: 7, ...}
//	ip route show table main             List(ctx, ns, Filter{Table: TableMain}); All for a full table
//	ip route get 192.0.2.1               Lookup(ctx, ns, Query{Dst: ...})
//	ip rule add fwmark 7 table 100       AddRules(ctx, ns, Rule{Family: IPv4, Mark: 7, Table: 100})
//	ip rule show, del                    ListRules, DeleteRules
//	ip nexthop add, replace, show        AddNextHop, ReplaceNextHops, ListNextHops
//	ip monitor route, rule, nexthop      Watch, WatchRules, WatchNextHops
//
// # Verbs
//
// Many routes go in one call, which sends them together.
//
//   - [Add] and [Append] make all of them or none.
//   - [Replace], [Change] and [Delete] continue past one that fails, and name it.
//   - [Flush] deletes what a [Filter] selects.
//   - [Sync] makes an owner's routes exactly those given, and touches only the difference.
//
// An owner is a [Protocol] that no other program uses. /etc/iproute2/rt_protos and
// linux/rtnetlink.h list those that are taken.
//
//	changes, err := route.Sync(ctx, host, 200, wanted...) // at every start of a daemon
//
// A rule sends packets to another table, here those with a mark, which nftables or SO_MARK
// sets:
//
//	way := route.Default(netip.MustParseAddr("10.88.0.7"))
//	way.Table = 100
//	err = route.Add(ctx, host, way)
//	err = route.AddRules(ctx, host, route.Rule{Family: route.IPv4, Mark: 7, Table: 100})
//
// Rules have [AddRules], [DeleteRules], [ListRules] and [SyncRules]. Next-hop objects have
// [AddNextHop], [AddNextHops], [ReplaceNextHops], [DeleteNextHops], [GetNextHop] and
// [ListNextHops].
//
// # Lists and events
//
// [List] returns a slice. [All] yields the routes of a full table and holds one reply of
// the kernel at a time. Both are complete or report an error. The kernel does not mark a
// dump during which routes change, and an IPv6 dump then lacks some, so both watch for
// changes while they read. If one matters, List reads again, and All ends with
// [ErrInterrupted].
//
// [Watch], [WatchRules] and [WatchNextHops] yield the present state, mark when it is
// complete, and then yield the changes, including those that the kernel makes without an
// event. After a loss of events they yield the state again.
//
//	for e, err := range route.Watch(ctx, host, route.Filter{Table: route.TableMain}) {
//		if err != nil {
//			return err
//		}
//		log.Print(e.Kind, " ", e.Item) // changed default via 10.88.0.1 dev 3 proto static
//	}
//
// [Lookup] asks the kernel which route a packet would take.
//
// # Text
//
// [Route.String] writes a route as ip-route(8) does, and [Parse] reads it.
//
// # Errors
//
// Errors are *netns.Error. If several items fail, there is one for each, joined. errors.Is
// finds os.ErrExist, os.ErrNotExist (no such route, rule, next hop or link),
// os.ErrPermission (no CAP_NET_ADMIN in the namespace's user namespace), os.ErrInvalid
// (refused before anything was sent), errors.ErrUnsupported (the kernel is too old, or
// built without it), os.ErrClosed, the errors of ctx, and the errno. A gateway that cannot
// be reached is ENETUNREACH for IPv4 and EHOSTUNREACH for IPv6.
//
// # Cancellation
//
// The kernel carries out a request inside the system call that sends it, up to a hundred at
// a time. If ctx is done, the next send is not made; Add then undoes the earlier ones.
//
// # Kernels
//
// Everything works on Linux 5.10 and newer unless a comment says otherwise. The sources are
// rtnetlink(7), ip-route(8), ip-rule(8), ip-nexthop(8) and linux/rtnetlink.h. On other
// systems each call returns errors.ErrUnsupported.
package route
