// Package route adds, replaces, deletes and lists the routes of a network
// namespace.
//
//	err := route.Add(ctx, web,
//		route.Default(netip.MustParseAddr("10.88.0.1")),
//		route.To(netip.MustParsePrefix("10.99.0.0/16"), netip.MustParseAddr("10.88.0.7")),
//	)
//
// Many routes go in one call and are sent together. [Add] adds all of them or
// none; [Replace] and [Delete] go on past one that fails, and say which did.
//
// A [Route] is a comparable value without a namespace: the same routes can be
// added in many. Links are meant by their index, in the namespace of the call.
//
// # Errors
//
// Errors are *netns.Error, one for each route that failed, joined. errors.Is
// finds os.ErrExist (the route is there), os.ErrNotExist (no such route, link or
// table), os.ErrPermission (no CAP_NET_ADMIN in the namespace's user namespace),
// os.ErrInvalid (refused before anything was sent), os.ErrClosed and the errors
// of ctx, besides the errno. A gateway that cannot be reached is ENETUNREACH,
// with the kernel's own words.
//
// # Cancellation
//
// rtnetlink carries a request out inside the system call that sends it, up to a
// hundred routes at a time. A context that is done keeps the next send from
// being made; Add then undoes the ones before.
//
// # Kernels
//
// Everything here works on Linux 5.10 and newer; see rtnetlink(7) and
// linux/rtnetlink.h. Elsewhere each call returns errors.ErrUnsupported.
package route
