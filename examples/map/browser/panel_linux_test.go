package browser

import (
	"testing"
	"time"
)

// The panel shows what ip shows, with the commands for it, and how much goes over the links.
func TestPanel(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	web.listen(80)
	web.run("nginx")
	p := serve(t, "127.0.0.1:0")
	x := open(t, p)
	x.wait(in(web.key()) + `?.textContent.includes("nginx")`)
	x.click("#" + web.key() + " text")
	for _, want := range []string{
		"/run/netns/web", "nginx", "eth0", web.addr.String() + "/16", "host veth1", "default via 10.88.0.1 dev eth0", "tcp :80", "ip -n web addr", "ip netns exec web ss -tulnp", "MTU 1500",
	} {
		x.wait(`document.querySelector("#panel").textContent.includes(` + quote(want) + `)`)
	}
	// Packets to the box are seen in its curve.
	c, err := m.host.Dial(t.Context(), "udp", web.addr.String()+":9")
	m.must(err)
	sent := make(chan struct{})
	stop := time.NewTicker(5 * time.Millisecond)
	t.Cleanup(func() { stop.Stop(); c.Close() })
	go func() {
		defer close(sent)
		for range stop.C {
			if _, err := c.Write(make([]byte, 1000)); err != nil && t.Context().Err() != nil {
				return
			}
		}
	}()
	x.wait(`[...document.querySelectorAll("#panel .link")].find(e => e.querySelector("b").textContent == "eth0")?.querySelector(".down")?.textContent.includes("kB/s")`)
	x.wait(`document.querySelectorAll("#panel .rate .rx").length == 2`)
	x.screenshot("rates")

	x.click("#panel .command button")
	x.wait(`document.querySelector("#panel .command button.done")`)
	x.click("#panel .close")
	x.wait(`document.getElementById("panel").hidden`)
	// The page asks for no counters while no panel is shown.
	x.mu.Lock()
	before := len(x.asked)
	x.mu.Unlock()
	time.Sleep(1500 * time.Millisecond) // a poll and a half: no event says that the page does not ask
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.asked) != before {
		t.Errorf("the page asks %v", x.asked[before:])
	}
}

// The picture can be kept as a file, and printed.
func TestFiles(t *testing.T) {
	m := newMachine(t)
	web := m.box("web")
	x := open(t, serve(t, "127.0.0.1:0"))
	x.wait(in(web.key()))
	if got := get[string](x, `fetch(document.getElementById("svg").href).then(r => r.text())`); len(got) < 100 || got[:5] != "<svg " {
		t.Errorf("the SVG is %.100s", got)
	}
	if n := get[int](x, `fetch(document.getElementById("json").href).then(r => r.json()).then(s => s.namespaces.length)`); n != 2 {
		t.Errorf("the JSON has %d namespaces", n)
	}
}
