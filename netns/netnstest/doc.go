// Package netnstest gives tests network namespaces of their own, without root.
//
//	func TestMain(m *testing.M) { netnstest.Main(m) }
//
//	func TestAttach(t *testing.T) {
//		t.Parallel()
//		host := netnstest.New(t)
//		...
//	}
//
// [Main] runs the tests in a network and a mount namespace that end with them,
// so that nothing they make can stay behind or touch the machine. Where the user
// is not root, it adds a user namespace in which he is. Nothing has to be
// installed for that, and nothing is setuid.
//
// [Pair], [Bridge], [On] and [Host] make namespaces with links, addresses and routes
// in one call.
//
// # When a test fails
//
// The state of its namespaces is printed: links, addresses, routes, rules,
// neighbours, nftables and sockets. No program is needed for that. [Capture] keeps
// the packets of a link for the case.
//
// When all tests have passed, Main looks at what they have left behind, and fails
// the run for it.
//
// # Where there are no namespaces
//
// Where the machine forbids user namespaces, tests that call [New] are skipped,
// and the skip names the setting; with BOXWIRE_REQUIRE_NETNS=1 in the
// environment they fail instead.
package netnstest
