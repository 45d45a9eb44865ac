// Package nl is the one netlink exchange path of the library.
//
// A [Conn] is a netlink socket that lives in one network namespace and may be
// used from any goroutine. It offers four exchanges:
//
//   - [Conn.Call] sends one request;
//   - [Conn.Exec] sends many, pipelined, and asks the kernel to acknowledge the
//     last of each send only, which costs about a fifth of acknowledging all of
//     them; errors come back for every request all the same;
//   - [Conn.Dump] reads a table, and reads it again when the kernel says that it
//     changed underneath;
//   - [Conn.Transaction] sends an nfnetlink batch, which the kernel commits or
//     discards as a whole.
//
// The kernel handles a request inside the send, so an exchange is over almost
// as soon as it was sent. Exchanges on one Conn are serialised; a connection
// whose state is in doubt (a failed read, a cancelled wait) is closed and
// replaced by the next exchange, never reused.
//
// Messages are encoded by appending to a byte slice ([AppendAttr] and its
// siblings) and decoded by a walk that copies nothing ([Walk]).
package nl
