// Package link makes, reads, changes and removes the links (network
// interfaces) of a network namespace, and their addresses.
//
// [Create] makes a link whole from a [Spec]: name, MTU, hardware address,
// master, addresses and, for a veth pair, the other end in another namespace.
// It either succeeds in everything or leaves nothing behind in either
// namespace:
//
//	eth, err := link.Create(ctx, host, link.Spec{
//		Name: "web0", Up: true, Master: br.Index,
//		Kind: link.Veth{Peer: link.Spec{
//			NS: web, Name: "eth0", Up: true,
//			Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.2/16")},
//		}},
//	})
//
// # Namespaces and goroutines
//
// Every function takes the namespace it works in; none depends on the thread
// it is called from, and all may be called from many goroutines at once. A
// [Link] is a value: what the kernel said when it was read, and the namespace
// it was read in. Its methods act in that namespace by the link's index, so a
// rename by somebody else does not lead them astray. It does not follow later
// changes; read it again with [Get] or [ByIndex]. It does not keep its
// namespace alive: once the handle is closed, its methods return os.ErrClosed.
//
// # Errors
//
// Errors are *netns.Error: operation, namespace, subject and cause. Use
// errors.Is with os.ErrExist (the name is taken), os.ErrNotExist (no such
// link, master or address), os.ErrPermission (CAP_NET_ADMIN is missing in the
// namespace's user namespace), errors.ErrUnsupported (the kernel lacks the
// kind, or this is not Linux), os.ErrClosed (the namespace was closed),
// os.ErrInvalid (refused before anything was sent) and the errors of ctx.
//
// # Cancellation
//
// A context that is done before a call means that nothing is sent. rtnetlink
// carries a request out inside the system call that sends it, so a change
// already handed over cannot be called back: calls that change something wait
// for the kernel's answer, and Create looks at ctx between its steps and undoes
// what was done. Reads stop at once.
//
// # Kernels
//
// Everything here works on Linux 5.4 and newer unless a comment says
// otherwise. On other systems each call returns an error that wraps
// errors.ErrUnsupported.
package link
