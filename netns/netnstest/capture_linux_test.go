package netnstest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// send sends a datagram from one box to another.
func send(t *testing.T, from, to Box, payload string) {
	t.Helper()
	pc, err := to.ListenPacket(t.Context(), "udp4", ":9") // else it comes back as unreachable
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	c, err := from.Dial(t.Context(), "udp", to.Addr4.Addr().String()+":9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(payload)); err != nil {
		t.Fatal(err)
	}
}

func TestCaptureOfAFailedTest(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(pcapEnv, dir)
	a, b := Pair(t)
	f := &failed{TB: t}
	Capture(f, b.NS, b.Link)
	Capture(f, a.NS, "lo")
	send(t, a, b, "across")
	send(t, a, a, "within")
	send(t, a, a, "within")
	log := f.end()
	files, err := filepath.Glob(dir + "/*.pcap")
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v\n%s", files, err, log)
	}
	for _, file := range files {
		if !strings.Contains(log, file) {
			t.Errorf("the log does not name %s:\n%s", file, log)
		}
		if strings.ContainsAny(filepath.Base(file), `:[]<>"|*? `) {
			t.Errorf("%s is no name for every shell, archive and system", file)
		}
		payload, times := "across", 1
		if strings.HasSuffix(file, "-lo.pcap") {
			payload, times = "within", 2
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b, []byte(payload)); n != times {
			t.Errorf("%s has the payload %d times, want %d", file, n, times)
		}
		// Where root has no groups to change to, tcpdump refuses to read anything.
		groups, _ := os.ReadFile("/proc/self/setgroups")
		tcpdump, err := exec.LookPath("tcpdump")
		if err != nil || string(groups) == "deny\n" {
			continue
		}
		out, err := exec.Command(tcpdump, "-nn", "-r", file, "udp", "port", "9").CombinedOutput()
		if err != nil || strings.Count(string(out), ".9: UDP, length 6") != times {
			t.Errorf("tcpdump reads %s, %v", out, err)
		}
	}
}

func TestCaptureOfAPassedTest(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(pcapEnv, dir)
	a, b := Pair(t)
	p := &passed{failed{TB: t}}
	Capture(p, b.NS, b.Link)
	send(t, a, b, "across")
	log := p.end()
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 || log != "" {
		t.Errorf("files %v, %v; the log says %q", files, err, log)
	}
}

func TestCaptureKeepsTheLast(t *testing.T) {
	t.Parallel()
	c := new(capture)
	for i := range 40 {
		c.keep(packet{data: bytes.Repeat([]byte{byte(i)}, 1<<20)})
	}
	if len(c.packets) != maxCapture>>20 || c.packets[0].data[0] != 40-maxCapture>>20 || c.size != maxCapture {
		t.Errorf("%d packets, the first is number %d, %d bytes", len(c.packets), c.packets[0].data[0], c.size)
	}
}

func TestPcapFormat(t *testing.T) {
	t.Parallel()
	got := pcap(linkRaw, []packet{{time.Unix(1, 2), []byte{0x45}}})
	want := []byte{
		0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0,
		1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0x45,
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func FuzzDump(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 'a', 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) { dumpAnything(b) })
}
