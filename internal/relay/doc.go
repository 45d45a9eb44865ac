// Package relay copies TCP connections and UDP datagrams from a socket of this
// process to a target that it dials.
//
// The socket may be one of its own, or one that is already bound and receives nothing
// ([Listen], [ListenPacket]): then the relay works on a copy of the descriptor, and the
// socket's filter lets in what is for one address while the relay runs.
package relay
