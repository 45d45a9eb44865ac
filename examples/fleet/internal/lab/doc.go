// Package lab makes a small world for tests, the quickstart and the bench of the fleet: machines, the network between
// them, an etcd to fail, and agents to kill. Nothing of it touches the machine it runs on.
//
//	                   router  198.18.0.1  2001:db8:1::1   198.18.4.1  2001:db8:2::1
//	                     |                                    |
//	switch1 (a bridge) --+-- host1  host2       switch2 ------+-- host3
//	                      198.18.0.2  .3                       198.18.4.2
//	                      2001:db8:1::2  ::3                   2001:db8:2::2
//
// A [Host] is a namespace that plays a machine. Its uplink leads to the switch of its segment, and its default routes to
// the router. Hosts of one segment are neighbours; hosts of two segments reach each other through the router. A
// [Host.Box] is a namespace behind a bridge of the host, as a container is.
//
// # A test
//
//	func TestMain(m *testing.M) {
//		labtest.Main(m, map[string]func([]string) int{"agent": agentMain})
//	}
//
//	func TestAgentIsKilled(t *testing.T) {
//		t.Parallel()
//		l := labtest.New(t, lab.Options{Segments: []int{2, 1}})
//		ctx := t.Context()
//		etcd, err := l.StartStore(ctx, l.Hosts[0])
//		agent := l.Hosts[1].Program("agent", "-name", "lab", "-insecure", "-store", etcd.Endpoints())
//		err = agent.Start()
//		...
//		writes, err := lab.CountWrites(ctx, l.Hosts[1].NS)
//		s, err := lab.StartStream(ctx, box1.NS, box2.NS, box2.Addrs[0].Addr(), lab.StreamOptions{})
//		err = s.WaitReceived(ctx, 100)
//		err = agent.Kill()
//		err = agent.Start()
//		... // wait until it is ready
//		changes, err := writes.Stop(ctx) // must be empty
//		stats, err := s.Stop(ctx)        // stats.Lost must be 0
//	}
//
// Package labtest ends the lab with the test and prints the lab's state when the test has failed.
//
// # A program
//
// A program that has a lab begins its main with
//
//	lab.Main(map[string]func([]string) int{"agent": agentMain}) // runs what a lab has started, and does not return then
//	err := lab.Sandbox()                                        // returns in namespaces of the program's own
//	l, err := lab.New(ctx, lab.Options{Segments: []int{3}, Named: true})
//	defer l.Close()
//
// # What fails, and how
//
//	a cable is pulled             Host.Cut, Host.Heal
//	the network splits            Lab.Partition(groups...), Lab.Partition() heals
//	another address, MTU, link    Host.ChangeAddrs, Host.SetMTU, Host.SetPathMTU, Host.RenameUplink, Host.ReplaceUplink
//	an agent dies                 Process.Kill, Process.Stop, Process.Pause, Process.Resume, Process.Start
//	a machine dies                Process.Kill and Host.Cut
//	a member of etcd dies         Member.Kill, Member.Restart
//	its disk stalls               Member.Pause, Member.Resume
//	the leader changes            Store.MoveLeader
//	the store is away             Store.Kill, Store.Restart
//	its data are lost             Store.Lose
//	compaction                    Store.Compact
//
// # How it is seen
//
//	packets are lost              StartStream: one packet a millisecond, each lost one counted
//	packets pass                  Reach: waits until TCP and UDP are answered
//	packets are refused           WaitUnreachable: waits until the kernel refuses at once
//	the kernel is changed         CountWrites: each change of links, addresses, routes and rules, read from raw netlink
//
// A wait ends with its event or with ctx; nothing sleeps for luck. No helper says that something never happens. A test
// that must say so makes something else happen last and waits for that, as [Writes.Stop] does.
//
// # Lifetime
//
// [Lab.Close] ends all processes, streams and counters, closes the namespaces and removes the files. The processes also
// end when the program ends, however it ends: the kernel kills them (PR_SET_PDEATHSIG), stopped ones too.
package lab
