//go:build linux

package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/testutil/tool"
)

// row is the row of a node in the table of ls.
func row(t *testing.T, h *lab.Host, n *node, name string) string {
	t.Helper()
	code, out := fleet(t, h, "ls", "-socket", n.socket)
	if code != 0 {
		t.Fatalf("ls: status %d: %s", code, out)
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, name+" ") {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	t.Fatalf("no %s in\n%s", name, out)
	return ""
}

func TestListAndForget(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2, 1}})
	etcd := value(l.StartStore(t.Context(), l.Hosts[0]))(t)
	patiently := l.Hosts[0].Program("fleet", "forget", "-name", "lab", "-store", "http://127.0.0.1:9", "host2") // ten seconds
	must(t, patiently.Start())
	var nodes []*node
	for _, h := range l.Hosts {
		nodes = append(nodes, start(t, h, on(etcd)...))
	}
	a, b, c := nodes[0], nodes[1], nodes[2]
	s := a.ready(2)
	b.ready(2)
	c.ready(2)
	ids := map[string]state.ID{s.Name: s.ID}
	prefixes := map[string]string{}
	for _, p := range s.Peers {
		ids[p.Name], prefixes[p.Name] = p.ID, strings.Trim(fmt.Sprint(p.Prefixes), "[]")
	}
	for name, want := range map[string]string{
		"NODE":  "NODE ID PREFIXES ENDPOINT MODE MTU STATE",
		"host1": fmt.Sprintf("host1 %s %s this one auto 1464 ready", ids["host1"].Short(), strings.Trim(fmt.Sprint(s.Prefixes), "[]")),
		"host2": fmt.Sprintf("host2 %s %s 198.18.0.3 direct 1500 up", ids["host2"].Short(), prefixes["host2"]),
		"host3": fmt.Sprintf("host3 %s %s 198.18.4.2 tunnel 1464 up", ids["host3"].Short(), prefixes["host3"]),
	} {
		if got := row(t, l.Hosts[0], a, name); got != want {
			t.Errorf("ls says %q, want %q", got, want)
		}
	}
	code, out := fleet(t, l.Hosts[0], "ls", "-json", "-socket", a.socket)
	var all status.State
	if err := json.Unmarshal([]byte(out), &all); code != 0 || err != nil || all.Validate() != nil || len(all.Peers) != 2 || all.ID != s.ID {
		t.Errorf("ls -json: status %d, %v: %s", code, err, out)
	}

	forget := func(h *lab.Host, who string, flags ...string) (int, string) {
		return fleet(t, h, append(append([]string{"forget", "-name", "lab"}, flags...), who)...)
	}
	for who, want := range map[string]string{
		"host3":                   "forget node host3: its agent is alive, on machine",
		ids["host3"].String():     "its agent is alive",
		ids["host3"].Short():      "its agent is alive",
		"nobody":                  "forget node nobody: there is no such node",
		"ho":                      "there is no such node",
		"":                        "there is no such node",
		"\x1b[2J\n":               `there is no such node`,
		"00000000":                "there is no such node",
		strings.Repeat("f", 300):  "there is no such node",
		ids["host3"].String()[:3]: "there is no such node", // too short to mean one
	} {
		code, out := forget(l.Hosts[0], who, on(etcd)...)
		wantError(t, "forget "+who, code, 1, out, want)
	}

	// A node whose agent is away is up, then dead nodes are down; both can be let go, by name and by ID.
	must(t, b.Kill())
	poll(t, "host2 is without its agent", func() (bool, string) {
		got := row(t, l.Hosts[0], a, "host2")
		return strings.HasSuffix(got, "up, without its agent"), got
	})
	must(t, c.Kill())
	must(t, l.Hosts[2].Cut(t.Context()))
	poll(t, "host3 is down", func() (bool, string) {
		got := row(t, l.Hosts[0], a, "host3")
		return strings.HasSuffix(got, " down"), got
	})
	if code, out := forget(l.Hosts[0], ids["host3"].Short(), on(etcd)...); code != 0 || out != "" {
		t.Errorf("forget by the ID's beginning: status %d, %q", code, out)
	}
	if code, out := forget(l.Hosts[0], ids["host2"].String(), on(etcd)...); code != 0 || out != "" {
		t.Errorf("forget by the ID: status %d, %q", code, out)
	}
	a.ready(0)
	for _, key := range keys(t, etcd, "lab") {
		if strings.Contains(key, ids["host2"].String()) || strings.Contains(key, ids["host3"].String()) {
			t.Errorf("the store has %s", key)
		}
	}
	code, out = forget(l.Hosts[0], "host2", on(etcd)...)
	wantError(t, "forget again", code, 1, out, "there is no such node")

	// An embedded store is reached by its socket.
	e := start(t, value(l.AddHost(t.Context(), 0))(t), "-store", "embed")
	e.ready(0)
	code, out = forget(e.host, e.host.Name, "-store", "unix://"+e.state+"/etcd.sock")
	wantError(t, "forget itself", code, 1, out, "its agent is alive")

	// The agent is away.
	a.stop()
	code, out = fleet(t, l.Hosts[0], "ls", "-socket", a.socket)
	wantError(t, "ls without an agent", code, 1, out, "asking the agent on "+a.socket+": no agent runs there")
	code, out = fleet(t, l.Hosts[0], "explain", "-socket", a.socket, "host2")
	wantError(t, "explain without an agent", code, 1, out, "asking the agent on "+a.socket+": no agent runs there")
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	code, err := patiently.Wait(ctx)
	must(t, err)
	wantError(t, "forget without a store", code, 1, patiently.Output(), "store http://127.0.0.1:9: forget node host2", "refused")
}

func TestExplainAPeer(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{1, 1}})
	etcd := value(l.StartStore(t.Context(), l.Hosts[0]))(t)
	a, b := start(t, l.Hosts[0], on(etcd)...), start(t, l.Hosts[1], on(etcd)...)
	s := a.ready(1)
	b.ready(1)
	explain := func(who string, code int, texts ...string) {
		t.Helper()
		got, out := fleet(t, l.Hosts[0], "explain", "-socket", a.socket, who)
		if got != code {
			t.Errorf("explain %s: status %d, want %d:\n%s", who, got, code, out)
		}
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("explain %s does not say %q:\n%s", who, text, out)
			}
		}
	}
	explain("host2", 0, "host2 ("+s.Peers[0].ID.Short()+") at 198.18.4.2", "nothing is wrong")
	explain(s.Peers[0].ID.String(), 0, "nothing is wrong")
	explain(s.Peers[0].ID.Short(), 0, "nothing is wrong")
	explain("nobody", 1, "nobody", "fleet explain: the node is not reached as it should be")
	explain("host1", 0, "this is the node itself")
	explain("a/b?c=d&e\x1b", 1, `a/b?c=d&e`)

	filter := func(table string) { testutil.Run(t, l.Hosts[1].NS, "nft", table) }
	filter("table inet filter { chain in { type filter hook input priority 0; udp dport 4790 drop; }; }")
	explain("host2", 1, "filtered-at-peer", "4790", "fleet explain: the node is not reached as it should be")
	filter("delete table inet filter")
	explain("host2", 0, "nothing is wrong")
	must(t, etcd.Kill())
	a.says(200, "the store is away")
	explain("host2", 1, "store-away: the store does not answer: store "+etcd.Endpoints())
}

// serve answers with its name.
func serve(args []string) int {
	fmt.Println(http.ListenAndServe(":80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, args[0], "answers", from)
	})))
	return 1
}

// ask prints what a server answers.
func ask(args []string) int {
	var err error
	for deadline := time.Now().Add(patient / 2); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var resp *http.Response
		if resp, err = (&http.Client{Timeout: 2 * time.Second}).Get("http://" + args[0]); err == nil {
			_, err = io.Copy(os.Stdout, resp.Body)
			resp.Body.Close()
			if err == nil {
				return 0
			}
		}
	}
	fmt.Println(err)
	return 1
}

// Boxes of two nodes reach each other, and a published port leads to the box from the other node.
func TestBoxesOfTheProgram(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{1, 1}})
	etcd := value(l.StartStore(t.Context(), l.Hosts[0]))(t)
	a, b := start(t, l.Hosts[0], on(etcd)...), start(t, l.Hosts[1], on(etcd)...)
	nodes := map[*node]status.State{a: a.ready(1), b: b.ready(1)}
	exe := value(os.Executable())(t)
	box := func(n *node, verb ...string) *lab.Process {
		return n.host.Program("fleet", append([]string{"box", "-socket", n.socket, "-state", n.state}, verb...)...)
	}
	inside := func(program string, args ...string) []string {
		return append([]string{"--", tool.Path(t, "env"), "BOXWIRE_LAB_PROGRAM=" + program, exe}, args...)
	}
	first := map[*node]string{} // the address of a node's first box
	for n, s := range nodes {
		p := box(n, append([]string{"run", "-name", "cli-" + n.host.Name, "-p", "8080:80"}, inside("serve", n.host.Name)...)...)
		must(t, p.Start())
		first[n] = state.Gateway(s.Prefixes[0]).Next().String()
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patient)
			defer cancel()
			if code, err := p.Stop(ctx); err != nil || code != 143 {
				t.Errorf("the box ended with status %d, %v: %s", code, err, p.Output())
			}
		})
		poll(t, "the box runs", func() (bool, string) {
			code, out := end(t, box(n, "exec", "cli-"+n.host.Name, tool.Path(t, "true")))
			return code == 0, out + p.Output()
		})
	}
	for from, to := range map[*node]*node{a: b, b: a} {
		gateway := state.Gateway(nodes[to].Prefixes[0]).String()
		for url, at := range map[string]string{
			first[to]: first[from], gateway + ":8080": first[from],
		} {
			code, out := end(t, box(from, append([]string{"exec", "cli-" + from.host.Name}, inside("ask", url)[1:]...)...))
			if want := fmt.Sprintln(to.host.Name, "answers", at); code != 0 || out != want {
				t.Errorf("from %s to %s: status %d, %q, want %q", from.host.Name, url, code, out, want)
			}
		}
	}
	if code, out := end(t, box(a, "ls")); code != 0 || !strings.Contains(out, "cli-host1") {
		t.Errorf("box ls: status %d: %s", code, out)
	}
	code, out := end(t, box(a, "lost"))
	if code == 0 || strings.Count(out, "\n") < 1 || !strings.Contains(out, "lost") {
		t.Errorf("box lost: status %d: %s", code, out)
	}
}
