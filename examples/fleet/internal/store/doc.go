// Package store keeps the state of a fleet in etcd.
//
// [Open] gives a [Store], a client of etcd. Nothing of it waits for the store: a store that is away makes a call fail after some
// seconds, and [Store.Follow] and [Store.KeepAlive] go on by themselves until it is back. [StartEmbed] runs one etcd member in
// this process, for a fleet that has no etcd of its own and for tests.
//
// The keys and the values are those of package state. What several agents may want at once happens in a transaction that is
// guarded by what was read before: a prefix has one claim, a node has one agent, and a dead node is only let go while it is dead.
// Nothing is written if the store has it already.
//
// All errors name the operation and the endpoints. One that comes from a failed connection also has its cause, such as the
// error of the TLS handshake, which errors.As finds.
package store
