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
// [Main] runs the tests in a network and a mount namespace that end with them. What a test
// makes cannot stay behind or touch the machine. If the user is not root, Main adds a user
// namespace in which it is. No installed or set-user-ID program is needed.
//
// [Pair], [Bridge], [On] and [Host] make namespaces with links, addresses and routes in one
// call. A [Box] is a namespace with its link and addresses:
//
//	host, boxes := netnstest.Bridge(t, 2) // a host, and two boxes on its bridge
//	ln, err := boxes[0].Listen(t.Context(), "tcp", ":80")
//	c, err := boxes[1].Dial(t.Context(), "tcp", boxes[0].Addr4.Addr().String()+":80")
//
// # When a test fails
//
// A failed test prints the state of its namespaces: links, addresses, routes, rules,
// neighbours, nftables as nft lists it, and sockets. [Capture] keeps the packets of a link for it.
//
// When all tests have passed, Main looks for what they have left behind, and fails the run
// if there is something.
//
// # Where there is no IPv6
//
// On a host without IPv6 the boxes of a topology have IPv4 only. [HasIPv6] reports it, and
// [NeedIPv6] skips a test. BOXWIRE_NETNSTEST_IPV6=disabled in the environment makes
// namespaces as on such a host.
//
// # Where there are no namespaces
//
// If the machine forbids user namespaces, tests that call [New] are skipped, and the skip
// names the setting. With BOXWIRE_REQUIRE_NETNS=1 in the environment they fail instead.
package netnstest
