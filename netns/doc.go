// Package netns makes network namespaces plain values.
//
// An [NS] is an open handle on one network namespace. [New] makes an unnamed one, [Create]
// and [Ensure] make one with a name that `ip netns` lists. [Current], [Open], [OpenPid],
// [OpenContainer] and their siblings find one. The functions of the packages link, route
// and nat take the namespace that they act in.
//
//	web, err := netns.Create(ctx, "web")
//	ln, err := web.Listen(ctx, "tcp", ":80")
//	lo, err := link.Get(ctx, web, "lo")
//	out, err := web.Command(ctx, "ip", "route").Output()
//
// # From ip netns to netns
//
//	ip netns add web                     Create, Ensure; New for one without a name
//	ip netns list, del, attach           List, Delete, Pin; ListAll for the unnamed ones, too
//	ip netns exec web PROGRAM            NS.Command(ctx, "PROGRAM", ...); Do for functions
//	ip netns exec web sysctl -w K=V      NS.SetSysctl, NS.Sysctl
//	ip netns identify, pids              OpenPid and NS.Equal; NS.Holders, which also finds sockets and mounts
//	ip netns set, list-id                NS.EnsureNSID, NS.AssignNSID, NS.NSIDs
//	ip netns monitor                     Watch
//	nsenter -t PID -n, docker inspect    OpenPid, OpenContainer
//	unshare -n -U                        NewInUserNS; in tests package netnstest
//
// # Sockets enter namespaces, goroutines do not
//
// A socket belongs for its whole life to the namespace it was opened in, whichever thread
// uses it. [NS.Dial], [NS.Listen], [NS.ListenPacket], [NS.Socket] and [NS.DialNetlink] open
// sockets in a namespace. The caller then uses them from any goroutine. [NS.Sysctl] and
// [NS.SetSysctl] do the same for settings. Most programs need no more.
//
// [NS.Command] starts a program that has to run inside.
//
// # What runs inside Do, and what does not
//
// [Do] is for foreign Go code that has to run inside. It runs a function on an operating
// system thread of its own, which is in the namespace for that time. The thread is in the
// namespace, and the goroutines that the function starts are not:
//
//   - The function's own system calls act in the namespace: sockets it opens, files it
//     opens below /proc/thread-self/net and /proc/sys/net, processes it starts. /proc/net
//     and /proc/self/net show the namespace of the process.
//   - A goroutine it starts runs on other threads, never in the namespace. A library that
//     dials, resolves or listens in the background does so outside: net.Dial of a host
//     name, http.Client, database/sql and grpc do.
//   - Timers, finalizers and context.AfterFunc run outside, too. So does work that the
//     function hands to another goroutine over a channel.
//   - What was opened inside stays inside. The function may return a socket, and any
//     goroutine may use it.
//   - Only the network namespace changes. /sys, the other files and the user ids are the
//     caller's.
//   - runtime.LockOSThread is not needed inside, and does no harm.
//   - Do does not interrupt the function, which must watch the context itself. A system
//     call that blocks keeps the thread. A nested Do has a thread of its own.
//   - Do checks on the way out that the thread is in the namespaces it came from (mount,
//     UTS, IPC, cgroup, and the pid and time namespaces of its children), and that it
//     shares working directory and descriptors with the process. If that does not hold, or
//     if setting the network namespace back fails, the thread ends and does not serve
//     other goroutines. Do does not check the thread's credentials.
//   - A panic and runtime.Goexit, and so testing.T.Fatal, reach the caller of Do.
//
// No function of this package leaves a thread in another namespace for other goroutines to
// run on. None requires runtime.LockOSThread of its caller.
//
// # Lifetime
//
// A namespace lives as long as something holds it: a process or thread in it, a bind mount
// (a name), an open descriptor, or a socket. [NS.Holders] lists what holds one.
//
// A handle is open until [NS.Close] or the end of the program. The garbage collector does
// not close it. A program may thus make a box, forget the handle, and go on with the links
// that lead to the box. An unnamed namespace ends when its handle and all sockets opened in
// it are closed. A named one lives until [Delete] and its last handle. Its links,
// addresses, routes and rules end with it; the kernel removes them in the background.
//
// # Errors
//
// Errors of netns, link, route and nat are [*Error]: operation, namespace, subject and
// cause. The exceptions are errors of the caller's own function in [Do] and [NS.WithFd],
// and of the program that a [Cmd] runs. errors.Is finds os.ErrExist, os.ErrNotExist,
// os.ErrPermission, os.ErrInvalid (bad input, refused before anything was sent),
// os.ErrClosed, errors.ErrUnsupported, the context's errors and the errno.
//
// # Privileges and kernels
//
// Making a namespace and entering another one takes CAP_SYS_ADMIN, in the caller's user
// namespace and in the one that owns the namespace entered (setns(2)). An unprivileged user
// has it in a user namespace of its own. Package netnstest makes one for tests.
//
// The namespace that the program is in is not entered, whatever the handle on it. Reading
// takes no privilege there, and changing takes CAP_NET_ADMIN alone, as with `ip`.
//
// Raw and packet sockets take CAP_NET_RAW, and ports below 1024 CAP_NET_BIND_SERVICE.
// Another user's process takes CAP_SYS_PTRACE. Names take CAP_SYS_ADMIN in the user
// namespace that owns the mount namespace. A missing capability is os.ErrPermission, and
// the error names it (capabilities(7)).
//
// Linux 5.10 is the oldest supported kernel. On other systems everything compiles and
// returns errors.ErrUnsupported.
package netns
