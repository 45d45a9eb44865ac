// Package failures has the tests of what happens to a fleet: agents that are killed, stores that lose their data, machines that die
// or come back with another address, networks that split. Each has real packets, whose losses are counted, and real processes to
// kill. It has no code but tests.
package failures
