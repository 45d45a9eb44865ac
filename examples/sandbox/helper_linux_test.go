package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// cliEnv makes the test binary the program itself, or the command in a box.
const cliEnv = "BOXWIRE_SANDBOX_TEST"

func TestMain(m *testing.M) {
	mode := os.Getenv(cliEnv)
	if os.Getenv(stageEnv) == stageInside {
		os.Setenv(cliEnv, "probe") // once it is inside
		mode = "sandbox"
	}
	switch mode {
	case "sandbox":
		main()
	case "probe":
		probe()
	default:
		netnstest.Main(m)
	}
}

// world is a host and what is outside: a resolver and servers at several addresses.
type world struct {
	host, outside netnstest.Box
	resolver      string

	mu    sync.Mutex
	zone  map[string][]string // records by name
	asked map[string]int
}

// outsideAddrs are further addresses of the outside.
var outsideAddrs = []string{"198.51.100.10/32", "198.51.100.11/32", "2001:db8:1::10/128", "2001:db8:1::11/128"}

// newWorld makes a host. Servers outside answer on the TCP ports 80 and 443 and the UDP port 443, and
// so do the host's own on 80 and 8080.
func newWorld(t *testing.T, zone map[string][]string) *world {
	t.Helper()
	w := &world{zone: zone, asked: map[string]int{}}
	w.host, w.outside = netnstest.Host(t)
	w.resolver = w.outside.Addr4.Addr().String()
	lo, err := link.Get(t.Context(), w.outside.NS, "lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range outsideAddrs {
		p := netip.MustParsePrefix(a)
		if p.Addr().Is6() && !netnstest.HasIPv6() {
			continue
		}
		if err := lo.AddPrefixes(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, w.outside.NS, ":80", ":443")
	serveUDP(t, w.outside.NS, "198.51.100.10:443", "198.51.100.11:443")
	serve(t, w.host.NS, ":80", ":8080")
	packets, err := w.outside.ListenPacket(t.Context(), "udp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := w.outside.Listen(t.Context(), "tcp", ":53")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: w}, {Listener: stream, Handler: w}} {
		done := make(chan struct{})
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { s.ActivateAndServe(); close(done) }()
		<-started
		t.Cleanup(func() { s.Shutdown(); <-done })
	}
	return w
}

// ServeDNS answers from the zone.
func (w *world) ServeDNS(rw dns.ResponseWriter, q *dns.Msg) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := new(dns.Msg).SetReply(q)
	name := normalName(q.Question[0].Name)
	w.asked[name]++
	records, ok := w.zone[name]
	if !ok {
		a.SetRcode(q, dns.RcodeNameError)
	}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if h := rr.Header(); h.Rrtype == q.Question[0].Qtype || h.Rrtype == dns.TypeCNAME {
			a.Answer = append(a.Answer, rr)
		}
	}
	if _, udp := rw.RemoteAddr().(*net.UDPAddr); udp {
		a.Truncate(1232)
	}
	rw.WriteMsg(a)
}

// serve greets each TCP connection, and then echoes.
func serve(t *testing.T, ns *netns.NS, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		l, err := ns.Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer c.Close()
					io.WriteString(c, "hello\n")
					io.Copy(c, c) // until the sandbox ends, before the server does
				})
			}
		})
		t.Cleanup(func() { l.Close(); wg.Wait() })
	}
}

// serveUDP echoes packets, and returns how many have come.
func serveUDP(t *testing.T, ns *netns.NS, addrs ...string) *atomic.Int32 {
	t.Helper()
	var count atomic.Int32
	for _, addr := range addrs {
		p, err := ns.ListenPacket(t.Context(), "udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			b := make([]byte, 100)
			for {
				n, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				count.Add(1)
				p.WriteTo(b[:n], from)
			}
		}()
		t.Cleanup(func() { p.Close(); <-done })
	}
	return &count
}

// session is a sandbox whose command does what the test says.
type session struct {
	t      *testing.T
	cmd    *netns.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
	ended  bool
}

// start starts a sandbox with the flags.
func (w *world) start(t *testing.T, flags ...string) *session {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, cmd: sandbox(context.Background(), w.host.NS, append(append([]string{"-dns", w.resolver}, flags...), "--", exe)...)}
	s.cmd.Stderr = &s.stderr
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end() })
	s.want("ready", "ok")
	return s
}

// sandbox is the program with arguments.
func sandbox(ctx context.Context, host *netns.NS, args ...string) *netns.Cmd {
	cmd := host.Command(ctx, "/proc/self/exe", args...)
	cmd.Env = programEnv()
	return cmd
}

// programEnv makes the test binary the program. With the race detector it would wait a second each
// time before it ends.
func programEnv() []string {
	return append(os.Environ(), cliEnv+"=sandbox", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
}

// do has the command do something, and returns what comes of it.
func (s *session) do(what string) string {
	s.t.Helper()
	fmt.Fprintln(s.in, what)
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.end()
		s.t.Fatalf("%s: the sandbox has ended: %s", what, s.stderr.String())
	}
	return strings.TrimSuffix(line, "\n")
}

func (s *session) want(what, result string) {
	s.t.Helper()
	if got := s.do(what); !strings.HasPrefix(got, result) {
		s.t.Errorf("%s: %s, want %s", what, got, result)
	}
}

// end ends the command, and returns the sandbox's status and what it has printed.
func (s *session) end() (status int, stderr string) {
	if !s.ended {
		s.ended = true
		s.in.Close()
		s.cmd.Wait()
	}
	return s.cmd.ProcessState.ExitCode(), s.stderr.String()
}

// once runs a sandbox and waits for it.
func (w *world) once(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	cmd := sandbox(ctx, w.host.NS, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("sandbox %q: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// empty fails the test if the host has anything of a sandbox's.
func (w *world) empty(t *testing.T) {
	t.Helper()
	if got := testutil.Run(t, w.host.NS, "nft", "list", "ruleset"); strings.TrimSpace(got) != "" {
		t.Errorf("nft rules are left: %s", got)
	}
	if got := testutil.Run(t, w.host.NS, "ip", "-o", "link"); strings.Count(got, "\n") != 2 {
		t.Errorf("links are left: %s", got)
	}
	if got, err := w.host.Sysctl(t.Context(), "net.ipv4.conf.wan0.forwarding"); err != nil || got != "0" {
		t.Errorf("wan0 forwards: %q, %v", got, err)
	}
}

// pidsIn are the processes in a box, by the link on the host. There are none where the box is gone.
func pidsIn(t *testing.T, host *netns.NS, name string) (pids []int) {
	t.Helper()
	l, err := link.Get(t.Context(), host, name)
	if err != nil {
		return nil
	}
	ns, err := host.OpenNSID(t.Context(), l.LinkNSID)
	if err != nil {
		t.Log(err)
		return nil
	}
	defer ns.Close()
	holders, err := ns.Holders(t.Context())
	if err != nil && !errors.Is(err, os.ErrPermission) {
		t.Fatal(err)
	}
	for _, h := range holders {
		if h.Kind == netns.HolderProcess {
			pids = append(pids, h.Pid)
		}
	}
	return pids
}

// gone reports whether a process has ended, whether or not its parent has taken note.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(b), ") ")
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || strings.HasPrefix(state, "Z")
}
