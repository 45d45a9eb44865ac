// Package sockdiag lists the sockets of a namespace (sock_diag(7)).
//
// The kernel filters: a question names a protocol, states, and perhaps a local port. A user
// without privileges in the namespace may ask, too, and is not told the marks.
package sockdiag
