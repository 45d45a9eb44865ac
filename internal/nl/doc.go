// Package nl is the library's one way to the kernel: every netlink message goes through it.
//
// A [Conn] is a netlink socket that lives in one network namespace and may be used from any
// goroutine. It offers four exchanges:
//
//   - [Conn.Call] sends one request.
//   - [Conn.Exec] sends many, pipelined. The kernel acknowledges only the last of each
//     send, and reports an error for every request nevertheless. [Conn.ExecAll] goes on
//     after errors that the caller ignores.
//   - [Conn.Dump] reads a table, and reads it again if the kernel reports that it changed.
//     A [Guard] reports that for tables for which the kernel does not.
//   - [Conn.Transaction] sends an nfnetlink batch, which the kernel commits or discards as
//     a whole.
//
// [Events] receives what the kernel multicasts, and [Follow] makes a table and its events
// one sequence.
//
// The kernel handles a request inside the system call that sends it, so the answer is there
// when the call returns. Exchanges on one Conn are serialised. After a failed read or a
// cancelled wait the state of a socket is in doubt: it is closed, and the next exchange
// opens another.
//
// Messages are encoded by appending to a byte slice ([AppendAttr] and its siblings), and
// decoded by a walk that copies nothing ([Walk]).
//
// BOXWIRE_DEBUG=netlink in the environment shows every message; see package nldebug.
package nl
