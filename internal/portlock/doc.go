// Package portlock keeps ports of a host from its programs.
//
// A reserved port is bound by a socket that receives nothing, so that another program's
// bind(2) fails with EADDRINUSE, and none that has the port is disturbed. Beyond the
// limits of a [Lock], it only checks that no socket uses a port.
//
// The sockets have a mark (SO_MARK) that depends on the name of the Lock: of two Locks
// with the same name, in one process or in two, the first keeps the port, and for the
// other it is as good as reserved.
package portlock
