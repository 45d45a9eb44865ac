// Package netns makes network namespaces plain values.
//
// A [NS] is an open handle on one network namespace. Make one with [New]
// (unnamed) or [Create] (pinned where `ip netns` looks), find one with
// [Current], [Open], [OpenPid], [OpenContainer] and their siblings, and hand it
// to the functions of the packages link, route and nat, which all take the
// namespace they act in.
//
// # Sockets enter namespaces, goroutines do not
//
// A socket belongs for its whole life to the namespace it was opened in,
// whichever thread uses it. [NS.Dial], [NS.Listen], [NS.ListenPacket] and
// [NS.DialNetlink] open sockets in a namespace; the caller then uses them from
// any goroutine. [NS.Sysctl] and [NS.SetSysctl] do the same for its settings.
// That is all that most programs need.
//
// A program that has to run inside is started with [NS.Command].
//
// # What runs inside Do, and what does not
//
// For foreign Go code that has to run inside, there is [Do]. It runs a function
// on an operating system thread of its own which is in the namespace meanwhile.
// The namespace is that thread's, not the goroutine's children's:
//
//   - The function's own system calls act in the namespace: sockets it opens,
//     files it opens below /proc/thread-self/net and /proc/sys/net, processes it
//     starts. /proc/net and /proc/self/net show the namespace of the process.
//   - A goroutine it starts runs on other threads, never in the namespace. A
//     library that dials, resolves or listens in the background does so outside:
//     net.Dial of a host name, http.Client, database/sql and grpc do.
//   - So do timers, finalizers, context.AfterFunc, and the function itself if it
//     hands its work to somebody over a channel.
//   - What was opened inside stays inside: a socket may be returned, and used
//     from any goroutine.
//   - Only the network namespace changes. /sys, the other files and the user ids
//     are the caller's.
//   - runtime.LockOSThread is not needed inside, and does no harm.
//   - The context is the function's to heed: a system call that blocks keeps the
//     thread. A nested Do has a thread of its own.
//   - On the way out the thread must be in the network, mount and user
//     namespace it came from. When it is not, or when the way back fails, the
//     thread ends with the call instead of serving other goroutines.
//   - A panic, runtime.Goexit and so testing.T.Fatal reach the caller of Do.
//
// No function of this package leaves a thread in another namespace for goroutines
// to run on, and none needs runtime.LockOSThread by its caller.
//
// # Lifetime
//
// A namespace lives as long as something holds it: a process or thread in it, a
// bind mount (a name), an open descriptor, or a socket. An unnamed namespace
// whose handle is closed is gone once the sockets opened in it are closed too,
// and with it its links, addresses, routes and rules; the kernel takes them away
// in the background. A named one lives until [Delete] and its last handle.
// [NS.Holders] says what it is that keeps one alive.
//
// # Errors
//
// Every error of this package, and of link, route and nat, is an [*Error]:
// operation, namespace, subject and cause. errors.Is finds os.ErrExist,
// os.ErrNotExist, os.ErrPermission, os.ErrInvalid (bad input, refused before
// anything was sent), os.ErrClosed, errors.ErrUnsupported, the context's errors
// and the errno.
//
// # Privileges and kernels
//
// Making and entering a namespace needs CAP_SYS_ADMIN in the user namespace that
// owns it; a normal user has that in a user namespace of his own, as package
// netnstest arranges it for tests. Linux 5.10 is the oldest kernel supported.
// Elsewhere everything compiles and returns errors.ErrUnsupported.
package netns
