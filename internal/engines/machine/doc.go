// Package machine gives a test a machine of its own, with real programs in it, and a neighbour on its
// network.
//
//	func TestMain(m *testing.M) { machine.Main(m) }
//
//	func TestBesideDocker(t *testing.T) {
//		m := machine.New(t, machine.Config{
//			Packages: []string{"docker.io", "iptables"}, Engine: "docker", Version: []string{"dockerd", "--version"},
//		})
//		dockerd := m.Daemon(t, "dockerd")
//		dockerd.Ready(t, func() error { _, err := m.Try("docker", "info"); return err })
//		gw, err := nat.Open(t.Context(), m.NS, nat.Options{})
//		...
//		c, err := m.LAN.Dial(t.Context(), "tcp", "192.0.2.2:8080")
//	}
//
// A machine is a set of namespaces: mount, network, pid, UTS, IPC and cgroup. Its root is the real
// machine's Debian under an overlay. Files outside of packages (/home, /root, /usr/local), what runs, and the
// network are its own. Kernel, user ids and time are the real machine's.
//
// # Packages
//
// New installs packages with apt-get, with the network of the real machine, and starts no service. What they write
// is kept in the directory boxwire-engines below os.UserCacheDir, or in BOXWIRE_ENGINES_CACHE, until the
// real machine's packages change. The cache must not lie in /usr, /etc or /var, nor on an overlay.
//
// A package that cannot be installed and an engine that does not start fail the test. With its name in
// BOXWIRE_ENGINES_ALLOW_MISSING (a list with commas) the test is skipped. BOXWIRE_ENGINES_VERSIONS names a
// file that gets a line for each engine and its version.
//
// # Programs
//
// Run, Try, Start and Daemon start programs in the machine. There is no service manager: what
// systemctl(1) would start, the test starts with Daemon. /var/lib/docker, /var/lib/containerd and /var/lib/containers are
// file systems of their own, and /sys/fs/cgroup is the unified hierarchy.
//
// # The end
//
// A machine ends with its test, also when the test is killed. Nothing is left on the real machine: no process, mount,
// namespace or cgroup. Only the cache stays.
package machine
